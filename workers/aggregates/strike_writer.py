"""Writes the strikes of authors to Redis, where the moderation worker reads them.

Best effort: it must never delay the counting, and its memory is bounded. All strikes are written again from time to
time, so what Redis loses comes back.
"""

from __future__ import annotations

import asyncio

import structlog

from workers.policy.strikes import NO_STRIKES, Standing
from workers.redis.breaker import Breaker
from workers.redis.strikes import Author, StoredStrikes
from workers.redis.writing import Writer

log = structlog.get_logger(__name__)

MAX_WAITING = 200_000
"""Authors whose strikes wait to be written. Beyond that the oldest are dropped, and written again later."""

WRITE_COUNT = 256


class StrikeWriter(Writer):
    """Holds the newest strikes of each author until they are written. `put` never blocks."""

    def __init__(self, stored: StoredStrikes) -> None:
        self._stored = stored
        self._waiting: dict[Author, Standing] = {}
        super().__init__(self._waiting, Breaker("redis_strikes", "strikes wait to be written"))
        self.has_lost = asyncio.Event()
        """Set when Redis answers again after it did not: it may have lost its data."""

    def put(self, tenant_id: str, author_id: str, standing: Standing | None) -> None:
        """Write the strikes of an author soon. None: there are none."""
        author = Author(tenant_id, author_id)
        self._waiting.pop(author, None)
        self._waiting[author] = NO_STRIKES if standing is None else standing
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self.wake()

    async def _write_some(self) -> bool:
        authors = [*self._waiting][:WRITE_COUNT]
        some = {author: self._waiting.pop(author) for author in authors}
        was_up = self._breaker.is_up
        if not await self._breaker.ask(self._write, some):
            for author, standing in some.items():
                self._waiting.setdefault(author, standing)
            return False
        if not was_up:
            self.has_lost.set()
        return True

    async def _write(self, some: dict[Author, Standing]) -> bool:
        await self._stored.write(some)
        return True
