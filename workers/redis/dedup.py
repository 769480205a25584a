"""Looks up in Redis which events were seen before and which content was judged before. `memories.py` writes it.

Redis may give wrong or late answers, or none: at worst the model works twice. Redis must never decide whether a verdict
is written, and no call here waits longer than `redis.timeout_s`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from pydantic import TypeAdapter

from schemas.assessment import Assessment
from workers.core.keys import Keys
from workers.core.records import Event
from workers.redis.breaker import Breaker
from workers.redis.client import Client
from workers.redis.entries import entries_of
from workers.settings import Dedup as DedupSettings

_ASSESSMENT = TypeAdapter(Assessment)

MAX_CLAIMS = 65_536
"""Events whose repeats are recognised before Redis stores them. Beyond that the oldest is dropped."""


class Claims:
    """The verdict ids of events that Redis may not store yet: the first copy of an event has the claim."""

    def __init__(self) -> None:
        self._claims: OrderedDict[bytes, str] = OrderedDict()

    def __len__(self) -> int:
        """Count the claimed events."""
        return len(self._claims)

    def claim(self, event_key: bytes, verdict_id: str) -> str:
        """Return the verdict id that has the claim: this one, unless another copy came earlier."""
        first = self._claims.setdefault(event_key, verdict_id)
        if len(self._claims) > MAX_CLAIMS:
            self._claims.popitem(last=False)
        return first

    def is_of_another(self, event_key: bytes, verdict_id: str) -> bool:
        """Say whether another copy of the event has the claim."""
        return self._claims.get(event_key, verdict_id) != verdict_id

    def release(self, event_key: bytes, verdict_id: str) -> None:
        """End the claim of this verdict, if it has it: Redis stores the verdict, or it will never be written."""
        if self._claims.get(event_key) == verdict_id:
            del self._claims[event_key]


class Dedup:
    """Looks up micro-batches, each with one MGET, or on a cluster with one request to each node.

    Guarantee: `look_up` handles every event. If Redis fails, it treats the events as new instead of raising. Waits for
    Redis for `timeout_s` at most.
    """

    def __init__(self, redis: Client, settings: DedupSettings, *, namespace: str, fingerprint: str) -> None:
        self._entries = entries_of(redis)
        self._is_enabled = settings.enabled
        self._keys = Keys(namespace, secret=settings.secret.get_secret_value(), fingerprint=fingerprint)
        self._breaker = Breaker("redis_lookups", "events are judged without deduplication")
        self.claims = Claims()

    @property
    def is_up(self) -> bool:
        """Whether the last look-up was answered."""
        return self._breaker.is_up

    async def look_up(self, batch: Sequence[Event]) -> None:
        """Fill in what Redis and the claims have for each event of a closed micro-batch."""
        for event in batch:
            event.event_key, event.content_key = self._keys.of(event.body, is_shared=event.is_shared)
        # Before the call to Redis, because micro-batches may be answered in another order.
        firsts = [self.claims.claim(event.event_key, event.verdict_id) for event in batch]
        stored = await self._stored(batch)
        for event, first, entry, assessment in zip(batch, firsts, stored[::2], stored[1::2], strict=True):
            known = first if entry is None else entry.decode("ascii", "replace")
            if known != event.verdict_id:  # If they are equal, it is a replay of the same position, not a duplicate.
                event.duplicate_of = known
            if assessment is not None:
                event.assessment = _assessment(assessment)
                event.is_reused = event.assessment is not None

    def release(self, events: Iterable[Event]) -> None:
        """Drop their claims: this worker will write no verdict for them."""
        for event in events:
            self.claims.release(event.event_key, event.verdict_id)

    async def _stored(self, batch: Sequence[Event]) -> list[bytes | None]:
        """Return the values under each event's two keys, one after the other."""
        if self._is_enabled:
            keys = [key for event in batch for key in (event.event_key, event.content_key)]
            stored: list[bytes | None] | None = await self._breaker.ask(self._entries.get, keys)
            if stored is not None:
                return stored
        return [None] * (2 * len(batch))


def _assessment(stored: bytes) -> dict[str, Any] | None:
    """Parse a stored assessment. None if it is invalid, because it could crash the worker or decide wrongly.

    The check takes 3 µs, for reused assessments only: those of the guard need no check.
    """
    try:
        _ASSESSMENT.validate_json(stored, strict=True)
        # The stages use a dict. Pydantic's model serves only for the check, because it is slower to write.
        found: dict[str, Any] = orjson.loads(stored)
    except ValueError:
        return None
    return found
