"""What the worker does without a verdict: it lets time pass for the rows, and looks at all rows now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

TICK_S = 5.0
SETTLE_S = 0.1
"""How often the worker asks whether its rows are restored, if it wants to look at them."""


class Upkeep:
    """Ticks every `TICK_S`, and looks every `look_every_s` and after `look_soon`.

    `is_settled`: whether the worker's partitions are assigned and their rows restored. `unread`: how many verdicts were
    not handed over yet. `tick` takes the time that has passed, `look` looks at all rows, `now_ms` is a clock.
    """

    def __init__(
        self,
        *,
        is_settled: Callable[[], bool],
        unread: Callable[[], int],
        tick: Callable[[int], Awaitable[None]],
        look: Callable[[], Awaitable[None]],
        look_every_s: float,
        now_ms: Callable[[], int],
    ) -> None:
        self._is_settled = is_settled
        self._unread = unread
        self._tick = tick
        self._look = look
        self._look_every_s = look_every_s
        self._now_ms = now_ms
        self._look_now = asyncio.Event()
        self._newest_ms = 0

    def has_read(self, received_ms: int) -> None:
        """Note the time of a verdict. While verdicts wait, the time of the newest one is the time that has passed."""
        self._newest_ms = max(self._newest_ms, received_ms)

    def look_soon(self) -> None:
        """Look as soon as the rows are restored."""
        self._look_now.set()

    async def tick_often(self) -> None:
        """Tell each partition of rows every `TICK_S` that time has passed."""
        while True:
            await asyncio.sleep(TICK_S)
            if self._is_settled():
                await self._tick(self.passed_ms())

    async def look_often(self) -> None:
        """Look at all rows: to write strikes to Redis again, and to find rows that are due."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_every_s):
                    await self._look_now.wait()
            while not self._is_settled():  # noqa: ASYNC110 - Faust has no event for it
                await asyncio.sleep(SETTLE_S)
            # Not before: the partitions are assigned, and a look is asked for, while the rebalance still goes on.
            self._look_now.clear()
            await self._look()

    def passed_ms(self) -> int:
        """Return the time up to which all verdicts were read; never after now, whatever the clocks of others say."""
        now_ms = self._now_ms()
        return min(self._newest_ms, now_ms) if self._unread() and self._newest_ms else now_ms
