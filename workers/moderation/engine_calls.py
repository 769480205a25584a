"""Calls to the guard: so many at a time, each noted in Redis, and none to an engine that hangs unseen.

A call is never cancelled here: the engine would go on with it all the same.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from workers.core.records import NOTHING_LOST
from workers.errors import Fatal
from workers.guard.guard import Refused, Request
from workers.redis.deaths import Deaths

Assessment = dict[str, Any]

HANG_TICKS = 10
"""Parts in which progress is awaited. A process that was frozen loses one of them, and is not taken for one whose
engine hangs."""

HANGS = (
    "the engine has answered nothing for {seconds:g} s (worker.engine_hangs_after_s), and it was asked. "
    f"{NOTHING_LOST}. If the engine is only slow, raise that setting"
)

OVERTAKEN_TIMES = 32
"""Times what was at the engine when a call began, the call included, counted in contents. A content may be 16 prompts
(8 windows in 2 views) and has up to two further questions: an engine that is fair has answered the call by then."""

OVERTAKEN = (
    "a call to the engine has not come back for more than {seconds:g} s (worker.engine_hangs_after_s), while the "
    f"engine answered {{prompts}} prompts: a part of it hangs. {NOTHING_LOST}"
)


class Assessor(Protocol):
    """What the moderation needs of a guard."""

    @property
    def answered(self) -> int:
        """Count the prompts that the engine has answered."""
        ...

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> Sequence[Assessment | Refused]:
        """Judge each request, and ask again until the deadline by `time.monotonic` at most."""
        ...


class EngineCalls:
    """Gives turns at the engine, and watches that it goes on.

    Guarantee: at most `batches_in_flight` turns at a time, and a turn alone has the engine for itself. A call is Fatal
    when the engine answers nothing at all for `hangs_after_s`; and when it does not come back for so long, while the
    engine answers `OVERTAKEN_TIMES` of what it was asked.
    """

    def __init__(self, guard: Assessor, notes: Deaths, *, batches_in_flight: int, hangs_after_s: float) -> None:
        self._guard = guard
        self._notes = notes
        self._batches_in_flight = batches_in_flight
        self._turns = asyncio.Semaphore(batches_in_flight)
        # As many again are noted and wait: a note is a way to Redis and back, and the engine would idle meanwhile.
        self._ahead = asyncio.Semaphore(2 * batches_in_flight)
        self._emptying = asyncio.Lock()
        self._hangs_after_s = hangs_after_s
        self._asked = 0
        self._came_back = 0

    @property
    def is_full(self) -> bool:
        """Whether what comes now would wait for more than its turn."""
        return self._ahead.locked()

    @asynccontextmanager
    async def turn(self, keys: Sequence[bytes]) -> AsyncIterator[None]:
        """Wait for a turn beside others, with a note of the contents."""
        async with self._ahead, self._notes.noted(keys), self._turns:
            yield

    @asynccontextmanager
    async def turn_alone(self, keys: Sequence[bytes]) -> AsyncIterator[None]:
        """Wait until nothing is at the engine, and keep it so. Two at a time would wait for each other for ever."""
        taken = 0
        async with self._emptying:
            try:
                while taken < self._batches_in_flight:
                    await self._turns.acquire()
                    taken += 1
                async with self._notes.noted(keys, is_alone=True):
                    yield
            finally:
                for _ in range(taken):
                    self._turns.release()

    async def assess(self, requests: Sequence[Request], deadline: float) -> Sequence[Assessment | Refused]:
        """Call the guard within a turn.

        Raises:
            Unavailable: the engine failed. Fatal: it hangs, or is gone for good.
        """
        call = asyncio.ensure_future(self._guard.assess(requests, deadline))
        self._asked += len(requests)
        prompts = OVERTAKEN_TIMES * self._asked
        overtaken_at = self._guard.answered + prompts
        ticks, since_progress, progress = 0, 0, self._progress
        while True:
            await asyncio.wait([call], timeout=self._hangs_after_s / HANG_TICKS)
            if call.done():
                self._asked -= len(requests)
                self._came_back += 1
                return call.result()
            ticks, since_progress = ticks + 1, since_progress + 1
            if progress != self._progress:
                since_progress, progress = 0, self._progress
            if since_progress >= HANG_TICKS:
                raise Fatal(HANGS.format(seconds=self._hangs_after_s))
            if ticks > HANG_TICKS and self._guard.answered > overtaken_at:
                raise Fatal(OVERTAKEN.format(seconds=self._hangs_after_s, prompts=prompts))

    @property
    def _progress(self) -> int:
        """Rises whenever anything comes back from the engine: a call, be it a failure, or a part of one."""
        return self._came_back + self._guard.answered
