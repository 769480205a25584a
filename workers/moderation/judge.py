"""Asks the guard, once for equal content under way, again when the engine fails, and never for work nobody waits for.

A judgement that cannot be had is None: the tenant's policy decides what that means. It never means allow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_before_delay, wait_random_exponential

from workers.errors import BadInput, Retriable
from workers.guard.guard import Request
from workers.moderation.records import Source

log = structlog.get_logger(__name__)

Assessment = dict[str, Any]


class Assessor(Protocol):
    """What the judge needs of a guard."""

    async def assess(self, requests: Sequence[Request]) -> list[Assessment]:
        """Judge each request."""
        ...


class NobodyWaits(Exception):
    """Every waiter of this work went away with its partition; nothing may be concluded from it."""


@dataclass(slots=True, eq=False)
class _Flight:
    """Work for one micro-batch, and the positions that wait for it."""

    done: asyncio.Future[list[Assessment | None]]
    waiters: list[Source] = field(default_factory=list)


class Judge:
    """Single flight in front of the guard.

    Guarantee: every request gets an assessment or None, or all of them NobodyWaits. One waiter's revoked partition
    never takes work from another: the flight belongs to all who wait for it. Waits for the engine for `patience_s`.
    """

    def __init__(self, guard: Assessor, *, in_flight: int, is_current: Callable[[Source], bool]) -> None:
        self._guard = guard
        self._slots = asyncio.Semaphore(in_flight)
        self._is_current = is_current
        self._flights: dict[tuple[bytes, float], tuple[_Flight, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def judge(
        self, keys: Sequence[bytes], requests: Sequence[Request], sources: Sequence[Source], patience_s: float
    ) -> list[Assessment | None]:
        """Assess the requests. `keys` say which contents are equal."""
        loop = asyncio.get_running_loop()
        own = _Flight(loop.create_future())
        own_keys: list[tuple[bytes, float]] = []
        own_requests: list[Request] = []
        seats: list[tuple[_Flight, int]] = []
        for key, request, source in zip(keys, requests, sources, strict=True):
            # Who is patient must not be given the failure of who is not.
            flight_key = (key, patience_s)
            seat = self._flights.get(flight_key)
            if seat is None:
                seat = self._flights[flight_key] = (own, len(own_requests))
                own_keys.append(flight_key)
                own_requests.append(request)
            seat[0].waiters.append(source)
            seats.append(seat)
        if own_requests:
            task = loop.create_task(self._fly(own, own_keys, own_requests, patience_s))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for flight in {seat[0] for seat in seats}:
            await asyncio.shield(flight.done)
        return [flight.done.result()[index] for flight, index in seats]

    async def _fly(
        self, flight: _Flight, keys: Sequence[tuple[bytes, float]], requests: Sequence[Request], patience_s: float
    ) -> None:
        try:
            async with self._slots:
                if any(self._is_current(source) for source in flight.waiters):
                    flight.done.set_result(await self._assess_with_patience(requests, patience_s))
                else:
                    flight.done.set_exception(NobodyWaits())
        except BaseException as error:
            if not flight.done.done():
                flight.done.set_exception(error)
            if not isinstance(error, Exception):
                raise
        finally:
            flight.done.exception()  # Nobody may be left to fetch it.
            for key in keys:
                self._flights.pop(key, None)

    async def _assess_with_patience(self, requests: Sequence[Request], patience_s: float) -> list[Assessment | None]:
        deadline = time.monotonic() + patience_s
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(Retriable),
                wait=wait_random_exponential(multiplier=0.1, max=5),
                stop=stop_before_delay(patience_s),
            ):
                with attempt:
                    return list(await self._guard.assess(requests))
        except RetryError as error:
            log.warning("no judgement could be had", events=len(requests), error=str(error.last_attempt.exception()))
            return [None] * len(requests)
        except BadInput as error:
            if len(requests) == 1:
                log.warning("the guard refuses an event", error=str(error))
                return [None]
            # One bad prompt fails a whole batch: judged alone, it harms nobody else.
            left_s = max(0.0, deadline - time.monotonic())
            alone = [await self._assess_with_patience([request], left_s) for request in requests]
            return [assessment for (assessment,) in alone]
        raise AssertionError("unreachable")
