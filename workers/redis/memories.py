"""Stores committed verdicts in Redis, with one queue and one task, so that no write overtakes another.

Step 8 of the commit. Best effort: it must never block a commit, and its memory is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import structlog

from workers import telemetry
from workers.core.records import Memory
from workers.redis.breaker import Breaker
from workers.redis.client import Client
from workers.redis.dedup import Claims
from workers.redis.entries import entries_of
from workers.redis.writing import Writer
from workers.settings import Dedup as DedupSettings

log = structlog.get_logger(__name__)

MAX_WAITING = 32_768
"""Verdicts that wait to be written, about 1 kB each: one and a half times the largest commit. Beyond that the oldest
are dropped, because recent events are repeated more often."""

WRITE_COUNT = 256
"""Verdicts in one write. Redis does nothing else during a write. When a whole transaction was one write, look-ups
waited 20 ms, and the engine waited for them."""


class Memories(Writer):
    """Writes committed verdicts, in the order of the commits, with two commands for each `WRITE_COUNT` verdicts.

    Guarantee: the first verdict that is stored for an event stays the first. A write that fails is retried until it
    succeeds, or until `MAX_WAITING` newer verdicts wait. `add` never blocks.
    """

    def __init__(self, redis: Client, settings: DedupSettings, claims: Claims) -> None:
        self._entries = entries_of(redis)
        self._settings = settings
        self._claims = claims
        self._waiting: deque[Memory] = deque()
        super().__init__(self._waiting, Breaker("redis_writes", "verdicts wait to be remembered"))

    def __len__(self) -> int:
        """Count the verdicts that wait to be written."""
        return len(self._waiting)

    @property
    def is_up(self) -> bool:
        """Whether the last write was answered."""
        return self._breaker.is_up

    def add(self, memories: Iterable[Memory]) -> None:
        """Queue committed verdicts."""
        for memory in memories:
            if not (memory.has_verdict and self._settings.enabled):
                self._claims.release(memory.event_key, memory.verdict_id)
            if self._settings.enabled:
                self._waiting.append(memory)
        self._forget_surplus()
        self.wake()

    def _forget_surplus(self) -> None:
        """Drop the oldest beyond the limit. Their repeats are recognised as long as their claims last."""
        surplus = len(self._waiting) - MAX_WAITING
        if surplus > 0:
            for _ in range(surplus):
                self._waiting.popleft()
            telemetry.FORGOTTEN.inc(surplus)
            log.warning("redis is slower than the verdicts: the oldest are not stored", forgotten=surplus)

    async def close(self) -> None:
        """Wait until everything is written, unless Redis does not answer."""
        await super().close()
        telemetry.FORGOTTEN.inc(len(self._waiting))

    async def _write_some(self) -> bool:
        memories = [self._waiting.popleft() for _ in range(min(WRITE_COUNT, len(self._waiting)))]
        if not await self._breaker.ask(self._write, memories):
            self._waiting.extendleft(reversed(memories))
            self._forget_surplus()
            return False
        # Not before Redis stores them: otherwise a repeat that is looked up in between would count as the first.
        for memory in memories:
            self._claims.release(memory.event_key, memory.verdict_id)
        return True

    async def _write(self, memories: Sequence[Memory]) -> bool:
        # In reverse order, so that the first verdict of an event stays the first, here and in Redis. A copy without
        # the claim is not the first, although it may be committed earlier, from another partition.
        events = {
            memory.event_key: memory.verdict_id
            for memory in reversed(memories)
            if memory.has_verdict and not self._claims.is_of_another(memory.event_key, memory.verdict_id)
        }
        contents = {memory.content_key: memory.assessment for memory in memories if memory.assessment is not None}
        if events:
            await self._entries.set(events, self._settings.event_ttl_s, only_new=True)
        if contents:
            await self._entries.set(contents, self._settings.content_ttl_s, only_new=False)
        return True
