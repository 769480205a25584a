"""Which conversations have a session at the engine. There may be more conversations than sessions.

A conversation that waits for its sender needs no session: the one that has waited longest gives its session to one that
has work, and gets another one when it has work itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from workers.errors import Unavailable


class Holder(Protocol):
    """A conversation that can do without its session."""

    async def lose_slot(self) -> None:
        """Give the session back to the engine: another conversation has the slot now."""
        ...


class Slots:
    """The sessions of one engine.

    At most `size` conversations work at a time. So one that works and has no session always finds a free one, or one of
    a conversation that waits.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._working = asyncio.Semaphore(size)
        self._waiting: OrderedDict[Holder, None] = OrderedDict()
        self._used = 0

    @asynccontextmanager
    async def work(self, timeout_s: float) -> AsyncIterator[None]:
        """Wait until fewer than `size` conversations work, in the order of the calls.

        Raises:
            Unavailable: not within the time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._working.acquire()
        except TimeoutError:
            raise Unavailable(f"all {self.size} sessions of the engine are in use (streams.max_sessions)") from None
        try:
            yield
        finally:
            self._working.release()

    async def take(self) -> None:
        """Get a slot for a conversation that works and has none."""
        if self._used < self.size:
            self._used += 1
            return
        holder, _ = self._waiting.popitem(last=False)
        try:
            await holder.lose_slot()
        except BaseException:  # Such as a deadline: nobody has the slot.
            self._used -= 1
            raise

    def wait(self, holder: Holder) -> None:
        """Say that a conversation has a slot and no work."""
        self._waiting[holder] = None

    def resume(self, holder: Holder) -> None:
        """Say that a conversation works again."""
        self._waiting.pop(holder, None)

    def give_back(self, holder: Holder) -> None:
        """Say that a conversation has no slot any more."""
        self._waiting.pop(holder, None)
        self._used -= 1
