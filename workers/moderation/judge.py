"""Asks the guard, once for equal content under way, again when the engine fails, and never for work nobody waits for.

A judgement that cannot be had is None: the tenant's policy decides what that means. It never means allow. Content that
was at the engine when workers died is judged alone, and content that died alone is judged no more. An engine that hangs
ends the worker: nobody else would ever notice it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from schemas.event import EventDict
from workers.core.records import NOTHING_LOST, Event, Source
from workers.errors import Fatal, Unavailable
from workers.guard.guard import Refused, Request
from workers.guard.patience import ask_with_patience
from workers.redis.deaths import Deaths

log = structlog.get_logger(__name__)

Assessment = dict[str, Any]
Content = tuple[bytes, Request]
"""What is judged, behind the key that is the same for equal content."""
Answers = list[Assessment | None]
Assess = Callable[[Sequence[Content]], Awaitable[Answers]]

HANG_TICKS = 10
"""Parts in which a call to the engine is awaited. A process that was frozen loses one of them, and is not taken for one
whose engine hangs."""

HANGS = (
    "a call to the engine has not come back for {seconds:g} s (worker.engine_hangs_after_s). "
    f"{NOTHING_LOST}. If the engine is only slow, raise that setting or lower batch.max_count"
)


class Assessor(Protocol):
    """What the judge needs of a guard."""

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> Sequence[Assessment | Refused]:
        """Judge each request, and ask again until the deadline by `time.monotonic` at most."""
        ...


@dataclass(slots=True, eq=False)
class _Flight:
    """Work for one micro-batch, and the positions that wait for it.

    The deadline is set at the first attempt: what waited for a place at the engine has lost none of its patience.
    """

    done: asyncio.Future[Answers]
    patience_s: float
    waiters: list[Source] = field(default_factory=list)
    deadline: float = math.inf
    has_failed: bool = False

    @property
    def left_s(self) -> float:
        """How long it may still be tried again."""
        return self.deadline - time.monotonic()

    @property
    def is_spent(self) -> bool:
        """Whether who joins now would get the failure of others, with less than half of the patience."""
        return self.has_failed and self.left_s < self.patience_s / 2


class Judge:
    """Single flight in front of the guard.

    Guarantee: every request gets an assessment or None. One waiter's revoked partition never takes work from another:
    the flight belongs to all who wait for it. An engine that fails is asked again for `patience_s` from the first
    attempt on, or at least half of it for who joins later, and no place at the engine is taken in between. A call that
    takes longer than `hangs_after_s` is Fatal.
    """

    def __init__(
        self,
        guard: Assessor,
        notes: Deaths,
        *,
        in_flight: int,
        is_current: Callable[[Source], bool],
        hangs_after_s: float,
    ) -> None:
        self._guard = guard
        self._notes = notes
        self._in_flight = in_flight
        self._slots = asyncio.Semaphore(in_flight)
        # As many again are noted and wait: a note is a way to Redis and back, and the engine would idle meanwhile.
        self._places = asyncio.Semaphore(2 * in_flight)
        self._emptying = asyncio.Lock()
        self._is_current = is_current
        self._hangs_after_s = hangs_after_s
        # By patience first: who is patient must not be given the failure of who is not.
        self._flights: dict[float, dict[bytes, tuple[_Flight, int]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        """Whether what comes now would have to wait for a place."""
        return self._places.locked()

    def suspects(self, events: Iterable[Event]) -> set[bytes]:
        """Give the keys of the contents that are judged alone, once nothing else is at the engine."""
        return self._notes.suspects(event.content_key for event in events)

    async def judge(self, events: Sequence[Event], patience_s: float) -> None:
        """Assess the events. Those with the same content key have equal content.

        An assessment stays None: no judgement could be had, or the event's partition went away before its turn came.
        The ledger drops the latter whatever comes of it; an exception instead would take the neighbours in its
        micro-batch with it.

        Raises:
            Fatal: the engine hangs, or is gone for good.
        """
        loop = asyncio.get_running_loop()
        flights = self._flights.setdefault(patience_s, {})
        own = _Flight(loop.create_future(), patience_s)
        own_contents: list[Content] = []
        seats: list[tuple[_Flight, int]] = []
        for event in events:
            seat = flights.get(event.content_key)
            if seat is None or seat[0].is_spent:
                seat = flights[event.content_key] = (own, len(own_contents))
                own_contents.append((event.content_key, _request(event.body)))
            seat[0].waiters.append(event.source)
            seats.append(seat)
        if own_contents:
            task = loop.create_task(self._fly(own, own_contents))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for flight in {seat[0] for seat in seats}:
            await asyncio.shield(flight.done)
        for event, (flight, index) in zip(events, seats, strict=True):
            event.assessment = flight.done.result()[index]

    async def _fly(self, flight: _Flight, contents: Sequence[Content]) -> None:
        try:
            flight.done.set_result(await self._judge(flight, contents))
        except BaseException as error:
            if not flight.done.done():
                flight.done.set_exception(error)
            if not isinstance(error, Exception):
                raise
        finally:
            flight.done.exception()  # Nobody may be left to fetch it.
            self._close(flight, contents)

    def _close(self, flight: _Flight, contents: Sequence[Content]) -> None:
        """Let nobody join any more."""
        flights = self._flights[flight.patience_s]
        for key, _ in contents:
            seat = flights.get(key)
            if seat is not None and seat[0] is flight:
                del flights[key]

    def _give_up(self, flight: _Flight, part: Sequence[Content]) -> Answers:
        """Leave what nobody waits for. Who comes from now on is current, and must not get an answer that is none."""
        self._close(flight, part)
        return [None] * len(part)

    async def _judge(self, flight: _Flight, contents: Sequence[Content]) -> Answers:
        async def assess(part: Sequence[Content]) -> Answers:
            async with self._places:
                if not self._has_waiters(flight):
                    return self._give_up(flight, part)
                async with self._notes.noted([key for key, _ in part]), self._slots:
                    return await self._assess(flight, part)

        suspects = self._notes.suspects(key for key, _ in contents)
        if not suspects:
            return await self._with_patience(flight, assess, contents)
        answers: Answers = [None] * len(contents)
        together = [index for index, (key, _) in enumerate(contents) if key not in suspects]
        if together:
            found = await self._with_patience(flight, assess, [contents[index] for index in together])
            for index, answer in zip(together, found, strict=True):
                answers[index] = answer
        for index, (key, _) in enumerate(contents):
            if key in suspects:
                answers[index] = await self._judge_alone(flight, contents[index])
        return answers

    def _has_waiters(self, flight: _Flight) -> bool:
        return any(self._is_current(source) for source in flight.waiters)

    async def _judge_alone(self, flight: _Flight, content: Content) -> Assessment | None:
        """Judge with nothing else at the engine, so that its death would tell who did it."""
        key, _ = content
        if self._notes.is_unjudgeable(key):
            log.warning("not judged: a worker died of this content", content=key.hex())
            return None

        async def assess(part: Sequence[Content]) -> Answers:
            async with self._all_slots(), self._notes.noted([key], is_alone=True):
                return await self._assess(flight, part)

        (answer,) = await self._with_patience(flight, assess, [content])
        if answer is not None:
            await self._notes.absolve(key)
        return answer

    async def _assess(self, flight: _Flight, part: Sequence[Content]) -> Answers:
        """Call the guard. A call that hangs is left behind, not cancelled: it would go on all the same."""
        if not self._has_waiters(flight):
            return self._give_up(flight, part)
        flight.deadline = min(flight.deadline, time.monotonic() + flight.patience_s)
        requests = [request for _, request in part]
        calls = {asyncio.create_task(_answers(self._guard, requests, flight.deadline))}
        for _ in range(HANG_TICKS):
            done, _pending = await asyncio.wait(calls, timeout=self._hangs_after_s / HANG_TICKS)
            for call in done:
                flight.has_failed = call.exception() is not None
                return [*call.result()]
        raise Fatal(HANGS.format(seconds=self._hangs_after_s))

    @asynccontextmanager
    async def _all_slots(self) -> AsyncIterator[None]:
        """Wait until nothing is at the engine, and keep it so. Two at a time would wait for each other for ever."""
        taken = 0
        async with self._emptying:
            try:
                while taken < self._in_flight:
                    await self._slots.acquire()
                    taken += 1
                yield
            finally:
                for _ in range(taken):
                    self._slots.release()

    async def _with_patience(self, flight: _Flight, assess: Assess, contents: Sequence[Content]) -> Answers:
        """Ask at least once, and again until the deadline while the engine fails. A place is taken for each attempt."""
        try:
            return await ask_with_patience(lambda: assess(contents), lambda: flight.deadline)
        except Unavailable as error:
            log.warning("no judgement could be had", events=len(contents), error=str(error))
            return [None] * len(contents)


async def _answers(guard: Assessor, requests: Sequence[Request], deadline: float) -> Answers:
    answers: Answers = []
    for answer in await guard.assess(requests, deadline):
        if isinstance(answer, Refused):
            log.warning("the guard refuses an event", error=str(answer))
        answers.append(None if isinstance(answer, Refused) else answer)
    return answers


def _request(body: EventDict) -> Request:
    turns = tuple([(turn["role"], turn["text"]) for turn in body.get("context", ())])
    return Request(body["text"], body.get("role", "user"), turns)
