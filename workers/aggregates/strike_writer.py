"""Writes the strikes of authors to Redis, where the moderation worker reads them.

Best effort: it must never delay the counting, and its memory is bounded. All strikes are written again from time to
time, so what Redis loses comes back.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from workers.policy.strikes import NO_STRIKES, Standing
from workers.redis.breaker import RETRY_AFTER_S, Breaker
from workers.redis.strikes import Author, StoredStrikes

log = structlog.get_logger(__name__)

MAX_WAITING = 200_000
"""Authors whose strikes wait to be written. Beyond that the oldest are dropped, and written again later."""

WRITE_COUNT = 256


class StrikeWriter:
    """Holds the newest strikes of each author until they are written. `put` never blocks."""

    def __init__(self, stored: StoredStrikes) -> None:
        self._stored = stored
        self._waiting: dict[Author, Standing] = {}
        self._breaker = Breaker("redis_strikes", "strikes wait to be written")
        self._has_work = asyncio.Event()
        self._is_closing = False
        self._has_ended = asyncio.Event()
        self.has_lost = asyncio.Event()
        """Set when Redis answers again after it did not: it may have lost its data."""

    def put(self, tenant_id: str, author_id: str, standing: Standing | None) -> None:
        """Write the strikes of an author soon. None: there are none."""
        author = Author(tenant_id, author_id)
        self._waiting.pop(author, None)
        self._waiting[author] = NO_STRIKES if standing is None else standing
        if len(self._waiting) > MAX_WAITING:
            del self._waiting[next(iter(self._waiting))]
        self._has_work.set()

    async def write(self) -> None:
        """Write until `close`. Run it once: any error that it raises is a bug."""
        try:
            while not self._is_closing or (self._waiting and self._breaker.is_up):
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
