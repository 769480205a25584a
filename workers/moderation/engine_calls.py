"""Calls the guard: limits the calls at a time, notes each in Redis, and detects an engine that hangs.

It never cancels a call, because the engine would continue with it anyway.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from workers import telemetry
from workers.core.engine_time import EngineTime
from workers.core.records import NOTHING_LOST
from workers.errors import Fatal
from workers.guard.guard import Refused, Request
from workers.redis.crash_notes import CrashNotes

Assessment = dict[str, Any]

HANG_TICKS = 10
"""The wait for progress is divided into this many parts. A frozen process loses one part, so it does not look like a
hanging engine."""

HANGS = (
    "the engine has answered nothing for {seconds:g} s (worker.engine_hangs_after_s), although it has work. "
    f"{NOTHING_LOST}. If the engine is only slow, raise that setting"
)

OVERTAKEN_TIMES = 32
"""A call hangs if it has not returned when the engine has answered this many times the contents that were at the engine
when the call began. A content may have 16 prompts (8 windows in 2 views) and up to two further prompts for each, so a
fair engine has answered the call by then."""

OVERTAKEN = (
    "a call to the engine has not returned for more than {seconds:g} s (worker.engine_hangs_after_s), while the "
    f"engine answered {{prompts}} prompts: a part of it hangs. {NOTHING_LOST}"
)


class Assessor(Protocol):
    """The part of a guard that this room needs."""

    @property
    def answered(self) -> int:
        """Count the prompts that the engine has answered."""
        ...

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> Sequence[Assessment | Refused]:
        """Judge each request, with retries until the deadline, a `time.monotonic` value."""
        ...


class EngineCalls:
    """Hands out turns at the engine, and detects a hang.

    Guarantee: at most `batches_in_flight` turns at a time; a turn alone has the engine for itself. A call raises Fatal
    if the engine answers nothing at all for `hangs_after_s`. It also does if it does not return for that time while the
    engine answers `OVERTAKEN_TIMES` as many contents as it had.
    """

    def __init__(self, guard: Assessor, notes: CrashNotes, *, batches_in_flight: int, hangs_after_s: float) -> None:
        self._guard = guard
        self._notes = notes
        self._batches_in_flight = batches_in_flight
        self._turns = asyncio.Semaphore(batches_in_flight)
        # The same number is noted ahead and waits: otherwise the engine would idle during the round trip to Redis.
        self._ahead = asyncio.Semaphore(2 * batches_in_flight)
        self._emptying = asyncio.Lock()
        self._hangs_after_s = hangs_after_s
        self._asked = 0
        self._came_back = 0
        self._engine_time = EngineTime()

    @property
    def is_full(self) -> bool:
        """Whether the next micro-batch would have to wait before it could be noted."""
        return self._ahead.locked()

    @asynccontextmanager
    async def turn(self, keys: Sequence[bytes]) -> AsyncIterator[None]:
        """Wait for a turn together with others, and note the contents."""
        async with self._ahead, self._notes.noted(keys), self._turns:
            yield

    @asynccontextmanager
    async def turn_alone(self, keys: Sequence[bytes]) -> AsyncIterator[None]:
        """Wait until nothing is at the engine, and keep it so. One at a time: two would wait for each other."""
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

    async def assess(
        self, requests: Sequence[Request], deadline: float
    ) -> tuple[Sequence[Assessment | Refused], float]:
        """Call the guard within a turn. Return the answers, and the seconds of engine time that the call used.

        Raises:
            Unavailable: the engine failed. Fatal: it hangs, or does not recover.
        """
        began = time.monotonic()
        begun = self._engine_time.begin(began)
        call = asyncio.ensure_future(self._guard.assess(requests, deadline))
        self._asked += len(requests)
        prompts = OVERTAKEN_TIMES * self._asked
        overtaken_at = self._guard.answered + prompts
        ticks, since_progress, progress = 0, 0, self._progress
        while True:
            await asyncio.wait([call], timeout=self._hangs_after_s / HANG_TICKS)
            if call.done():
                engine_s = self._engine_time.end(begun, time.monotonic())
                self._asked -= len(requests)
                self._came_back += 1
                telemetry.ENGINE_CALL_SECONDS.observe(time.monotonic() - began)
                return call.result(), engine_s
            ticks, since_progress = ticks + 1, since_progress + 1
            if progress != self._progress:
                since_progress, progress = 0, self._progress
            if since_progress >= HANG_TICKS:
                raise Fatal(HANGS.format(seconds=self._hangs_after_s))
            if ticks > HANG_TICKS and self._guard.answered > overtaken_at:
                raise Fatal(OVERTAKEN.format(seconds=self._hangs_after_s, prompts=prompts))

    @property
    def _progress(self) -> int:
        """Increases whenever the engine answers: a whole call, a failed call, or a part of a call."""
        return self._came_back + self._guard.answered
