"""What Redis remembers: events seen before and content judged before.

Redis may lie, lag or die: at worst the model works twice. It must never decide whether a verdict is written, and no
call here waits longer than `redis.timeout_s`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import orjson
import structlog
from pydantic import TypeAdapter
from redis.asyncio import Redis
from redis.commands.core import DataPersistOptions
from redis.exceptions import RedisError, ResponseError

from schemas.assessment import Assessment
from workers.core.keys import Keys
from workers.core.records import Event, Memory
from workers.settings import Dedup as DedupSettings

log = structlog.get_logger(__name__)

_ASSESSMENT = TypeAdapter(Assessment)

MAX_CLAIMS = 65_536
"""Events under way whose repeats are recognised before Redis knows them. Past it the oldest is forgotten."""

RETRY_AFTER_S = 1.0
"""After a failed call Redis is left alone for this long, so that an outage costs no time-out for each micro-batch."""

REMEMBER_COUNT = 256
"""Events that are written at a time: Redis does nothing else meanwhile. With all of a transaction's at once look-ups
waited 20 ms, and with them the engine."""

SET_EACH = """
for i = 1, #KEYS do
  if ARGV[1] == 'NX' then redis.call('SET', KEYS[i], ARGV[i + 2], 'EX', ARGV[2], 'NX')
  else redis.call('SET', KEYS[i], ARGV[i + 2], 'EX', ARGV[2]) end
end
"""
"""Does what MSETEX does, for servers that lack it (it came with Redis 8.4 and Valkey 9.1), in three times as much of
their time; and where some of the keys are there already, for which MSETEX writes none."""


class Dedup:
    """Looks micro-batches up with one MGET, and writes them with two commands after their commit.

    Guarantee: `look_up` answers for every event, and knows nothing rather than failing. Waits for Redis for
    `timeout_s` at most.
    """

    def __init__(self, redis: Redis, settings: DedupSettings, *, namespace: str, fingerprint: str) -> None:
        self._redis = redis
        self._settings = settings
        self._keys = Keys(namespace, secret=settings.secret.get_secret_value(), fingerprint=fingerprint)
        self._set_each = redis.register_script(SET_EACH)
        self._has_msetex = True
        self._claims: OrderedDict[bytes, str] = OrderedDict()
        self._down_until = 0.0

    @property
    def is_up(self) -> bool:
        """Whether the last call was answered."""
        return self._down_until == 0.0

    async def look_up(self, batch: Sequence[Event]) -> None:
        """Say of each event, whose micro-batch is closed, what is known of it."""
        for event in batch:
            event.event_key, event.content_key = self._keys.of(event.body, is_shared=event.is_shared)
        # Before Redis is asked: micro-batches may be answered in another order than they came in.
        claims = [self._claims.setdefault(event.event_key, event.verdict_id) for event in batch]
        while len(self._claims) > MAX_CLAIMS:
            self._claims.popitem(last=False)
        stored = await self._stored(batch)
        for event, claim, entry, assessment in zip(batch, claims, stored[::2], stored[1::2], strict=True):
            first = claim if entry is None else entry.decode("ascii", "replace")
            if first != event.verdict_id:  # Else it is a replay of this very position, not a duplicate.
                event.duplicate_of = first
            if assessment is not None:
                event.assessment = _assessment(assessment)
                event.is_reused = event.assessment is not None

    async def _stored(self, batch: Sequence[Event]) -> list[bytes | None]:
        """Give what Redis holds under each event's two keys, one after the other."""
        nothing: list[bytes | None] = [None] * (2 * len(batch))
        if not self._settings.enabled or time.monotonic() < self._down_until:
            return nothing
        try:
            stored: list[Any] = await self._redis.mget(
                [key for event in batch for key in (event.event_key, event.content_key)]
            )
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            return nothing
        self._down_until = 0.0
        return stored

    async def remember(self, memories: Sequence[Memory]) -> None:
        """Write what was committed (step 8). Best effort."""
        for start in range(0, len(memories), REMEMBER_COUNT):
            chunk = memories[start : start + REMEMBER_COUNT]
            if self._settings.enabled and time.monotonic() >= self._down_until:
                await self._write(chunk)
            # Not before Redis knows them: a repeat that is looked up meanwhile would be taken for the first.
            for memory in chunk:
                self._claims.pop(memory.event_key, None)

    async def _write(self, memories: Sequence[Memory]) -> None:
        # Backwards: the first verdict of an event stays the first, here and in Redis.
        events = {memory.event_key: memory.verdict_id for memory in reversed(memories)}
        contents = {memory.content_key: memory.assessment for memory in memories if memory.assessment is not None}
        try:
            await self._set(events, self._settings.event_ttl_s, DataPersistOptions.NX)
            if contents:
                await self._set(contents, self._settings.content_ttl_s, None)
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)

    async def _set(self, entries: dict[bytes, bytes], ttl_s: int, condition: DataPersistOptions | None) -> None:
        if self._has_msetex:
            try:
                if await self._redis.msetex(entries, condition, ex=ttl_s):
                    return
            except ResponseError as error:
                if "unknown command" not in str(error):
                    raise
                self._has_msetex = False
        await self._set_each(keys=[*entries], args=[condition.value if condition else "", ttl_s, *entries.values()])

    def _failed(self, error: Exception) -> None:
        if self.is_up:
            log.warning("redis does not answer: events are judged without deduplication", error=str(error))
        self._down_until = time.monotonic() + RETRY_AFTER_S


def _assessment(stored: bytes) -> dict[str, Any] | None:
    """Read a stored assessment. What breaks the contract is not known: it would end the worker, or decide wrongly.

    3 µs for the check, and only for what is reused: what the guard gives needs none.
    """
    try:
        _ASSESSMENT.validate_json(stored, strict=True)
        # A dict is what goes on: pydantic's model is for the check alone, and slower to write.
        found: dict[str, Any] = orjson.loads(stored)
    except ValueError:
        return None
    return found
