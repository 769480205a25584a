"""Stores committed verdicts in Redis, with one queue and one task, so that no write overtakes another.

Step 8 of the commit. Best effort: it must never block a commit, and its memory is bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import structlog
from redis.asyncio import Redis
from redis.commands.core import DataPersistOptions
from redis.exceptions import ResponseError

from workers import telemetry
from workers.core.records import Memory
from workers.redis.breaker import RETRY_AFTER_S, Breaker
from workers.redis.dedup import Claims
from workers.settings import Dedup as DedupSettings

log = structlog.get_logger(__name__)

MAX_WAITING = 32_768
"""Verdicts that wait to be written, about 1 kB each: one and a half times the largest commit. Beyond that the oldest
are dropped, because recent events are repeated more often."""

WRITE_COUNT = 256
"""Verdicts in one write. Redis does nothing else during a write. When a whole transaction was one write, look-ups
waited 20 ms, and the engine waited for them."""

SET_EACH = """
for i = 1, #KEYS do
  if ARGV[1] == 'NX' then redis.call('SET', KEYS[i], ARGV[i + 2], 'EX', ARGV[2], 'NX')
  else redis.call('SET', KEYS[i], ARGV[i + 2], 'EX', ARGV[2]) end
end
"""
"""Does what MSETEX does, in three times as much of the server's time. For servers without MSETEX (before Redis 8.4 and
Valkey 9.1), and for writes of which some keys exist, because MSETEX with NX then writes none."""


class Memories:
    """Writes committed verdicts, in the order of the commits, with two commands for each `WRITE_COUNT` verdicts.

    Guarantee: the first verdict that is stored for an event stays the first. A write that fails is retried until it
    succeeds, or until `MAX_WAITING` newer verdicts wait. `add` never blocks.
    """

    def __init__(self, redis: Redis, settings: DedupSettings, claims: Claims) -> None:
        self._redis = redis
        self._settings = settings
        self._claims = claims
        self._set_each = redis.register_script(SET_EACH)
        self._has_msetex = True
        self._waiting: deque[Memory] = deque()
        self._breaker = Breaker("redis_writes", "verdicts wait to be remembered")
        self._has_work = asyncio.Event()
        self._is_closing = False
        self._has_ended = asyncio.Event()

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
        self._has_work.set()

    def _forget_surplus(self) -> None:
        """Drop the oldest beyond the limit. Their repeats are recognised as long as their claims last."""
        surplus = len(self._waiting) - MAX_WAITING
        if surplus > 0:
            for _ in range(surplus):
                self._waiting.popleft()
            telemetry.FORGOTTEN.inc(surplus)
            log.warning("redis is slower than the verdicts: the oldest are not stored", forgotten=surplus)

    async def write(self) -> None:
        """Write until `close`. Run it once: any error that it raises is a bug."""
        try:
            while not self._is_closing or (self._waiting and self.is_up):
                self._has_work.clear()
                while self._waiting and await self._write_some():
                    pass
                if not self._is_closing:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(RETRY_AFTER_S if self._waiting else None):
                            await self._has_work.wait()
        finally:
            self._has_ended.set()

    async def close(self) -> None:
        """Wait until everything is written, unless Redis does not answer."""
        self._is_closing = True
        self._has_work.set()
        await self._has_ended.wait()
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
            await self._set(events, self._settings.event_ttl_s, DataPersistOptions.NX)
        if contents:
            await self._set(contents, self._settings.content_ttl_s, None)
        return True

    async def _set(self, entries: dict[bytes, Any], ttl_s: int, condition: DataPersistOptions | None) -> None:
        if self._has_msetex:
            try:
                if await self._redis.msetex(entries, condition, ex=ttl_s):
                    return
            except ResponseError as error:
                if "unknown command" not in str(error):
                    raise
                self._has_msetex = False
        await self._set_each(keys=[*entries], args=[condition.value if condition else "", ttl_s, *entries.values()])
