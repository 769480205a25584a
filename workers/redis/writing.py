"""The task that writes to Redis in the background what waits to be written, so that no write overtakes another."""

from __future__ import annotations

import asyncio
from collections.abc import Sized
from contextlib import suppress

from workers.redis.breaker import RETRY_AFTER_S, Breaker


class Writer:
    """Writes what `waiting` holds. A subclass fills it, calls `wake`, and says how some of it is written.

    Best effort: a write that fails is repeated until it succeeds, and nobody waits for it before `close`.
    """

    def __init__(self, waiting: Sized, breaker: Breaker) -> None:
        self._to_write = waiting
        self._breaker = breaker
        self._has_work = asyncio.Event()
        self._is_closing = False
        self._has_ended = asyncio.Event()

    def wake(self) -> None:
        """Say that something waits. Never blocks."""
        self._has_work.set()

    async def write(self) -> None:
        """Write until `close`. Run it once: any error that it raises is a bug."""
        try:
            while not self._is_closing or (self._to_write and self._breaker.is_up):
                self._has_work.clear()
                while self._to_write and await self._write_some():
                    pass
                if not self._is_closing:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(RETRY_AFTER_S if self._to_write else None):
                            await self._has_work.wait()
        finally:
            self._has_ended.set()

    async def close(self) -> None:
        """Wait until everything is written, unless Redis does not answer."""
        self._is_closing = True
        self.wake()
        await self._has_ended.wait()

    async def _write_some(self) -> bool:
        """Write some of what waits. Return whether Redis has it."""
        raise NotImplementedError
