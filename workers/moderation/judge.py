"""Asks the guard, once for equal content under way, again when the engine fails, and never for work nobody waits for.

A judgement that cannot be had is None: the tenant's policy decides what that means. It never means allow. Content that
was at the engine when workers died is judged alone, and content that died alone is judged no more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager

import structlog

from schemas.event import EventDict
from workers.core.records import Event, Source
from workers.core.single_flight import SingleFlight, Work, deadline_of
from workers.errors import Unavailable
from workers.guard.guard import Refused, Request
from workers.guard.patience import ask_with_patience
from workers.moderation.engine_calls import Assessor, EngineCalls
from workers.redis.deaths import Deaths

log = structlog.get_logger(__name__)

Flight = asyncio.Future[None]
"""Done when all works of one micro-batch are settled."""
Turn = Callable[[Sequence[bytes]], AbstractAsyncContextManager[None]]


class Judge:
    """Single flight in front of the guard.

    Guarantee: every event gets an assessment or None. One waiter's revoked partition never takes work from another: a
    work belongs to all who wait for it. An engine that fails is asked again for the event's patience from the first
    attempt on, or at least half of it for who joins later, and no turn at the engine is taken in between.
    """

    def __init__(
        self,
        guard: Assessor,
        notes: Deaths,
        *,
        batches_in_flight: int,
        is_current: Callable[[Source], bool],
        hangs_after_s: float,
    ) -> None:
        self._notes = notes
        self._calls = EngineCalls(guard, notes, batches_in_flight=batches_in_flight, hangs_after_s=hangs_after_s)
        self._single_flight: SingleFlight[Flight] = SingleFlight(is_current)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        """Whether what comes now would have to wait for a place."""
        return self._calls.is_full

    def suspects(self, events: Iterable[Event]) -> set[bytes]:
        """Give the keys of the contents that are judged alone, once nothing else is at the engine."""
        return self._notes.suspects(event.content_key for event in events)

    async def judge(self, events: Sequence[Event]) -> None:
        """Assess the events, each for as long as its patience lasts. Equal content has the same content key.

        An assessment stays None: no judgement could be had, or the event's partition went away before its turn came.
        An exception instead of the latter would take the neighbours in its micro-batch with it.

        Raises:
            Fatal: the engine hangs, or is gone for good.
        """
        loop = asyncio.get_running_loop()
        flight, now = loop.create_future(), time.monotonic()
        join = self._single_flight.join
        works = [join(event.content_key, event.body, event.source, event.patience_s, flight, now) for event in events]
        own = [work for work in dict.fromkeys(works) if work.flight is flight]
        if own:
            task = loop.create_task(self._fly(flight, own))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for joined in {work.flight for work in works}:
            await asyncio.shield(joined)
        for event, work in zip(events, works, strict=True):
            event.assessment = work.assessment

    async def _fly(self, flight: Flight, works: Sequence[Work[Flight]]) -> None:
        try:
            await self._judge(works)
        except BaseException as error:
            flight.set_exception(error)
            flight.exception()  # Nobody may be left to fetch it.
            self._settle_as_none(works)
            if not isinstance(error, Exception):
                raise
        else:
            flight.set_result(None)

    def _settle_as_none(self, works: Iterable[Work[Flight]]) -> int:
        left = [work for work in works if not work.is_settled]
        for work in left:
            self._single_flight.settle(work, None)
        return len(left)

    async def _judge(self, works: Sequence[Work[Flight]]) -> None:
        suspects = self._notes.suspects(work.key for work in works)
        together = [work for work in works if work.key not in suspects] if suspects else works
        if together:
            await self._ask(together, self._calls.turn)
        for work in works if suspects else ():
            if work.key in suspects:
                await self._judge_alone(work)

    async def _judge_alone(self, work: Work[Flight]) -> None:
        """Judge with nothing else at the engine, so that its death would tell who did it."""
        if self._notes.is_unjudgeable(work.key):
            log.warning("not judged: a worker died of this content", content=work.key.hex())
            self._single_flight.settle(work, None)
            return
        await self._ask([work], self._calls.turn_alone)
        if work.assessment is not None:
            await self._notes.absolve(work.key)

    async def _ask(self, works: Sequence[Work[Flight]], turn: Turn) -> None:
        """Ask at least once, and again until the deadline while the engine fails. A turn is taken for each attempt."""

        async def attempt() -> None:
            async with turn([work.key for work in works if not work.is_settled]):
                await self._attempt(works)

        try:
            await ask_with_patience(attempt, lambda: deadline_of(works))
        except Unavailable as error:
            lost = self._settle_as_none(works)
            log.warning("no judgement could be had", events=lost, error=str(error))

    async def _attempt(self, works: Sequence[Work[Flight]]) -> None:
        wanted = self._single_flight.begin(works, time.monotonic())
        if not wanted:
            return
        try:
            answers = await self._calls.assess([_request(work.body) for work in wanted], deadline_of(wanted))
        except Unavailable:
            self._single_flight.fail(wanted, time.monotonic())
            raise
        for work, answer in zip(wanted, answers, strict=True):
            if isinstance(answer, Refused):
                log.warning("the guard refuses an event", error=str(answer))
            self._single_flight.settle(work, None if isinstance(answer, Refused) else answer)


def _request(body: EventDict) -> Request:
    turns = tuple([(turn["role"], turn["text"]) for turn in body.get("context", ())])
    return Request(body["text"], body.get("role", "user"), turns)
