"""Calls the guard: once for equal content in flight, again when the engine fails, and not for work without waiters.

An event that cannot be judged gets None: the tenant's policy decides, and never allows it. Content that was at the
engine in several crashes is judged alone. Content that crashed a worker alone is not judged again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager

import structlog

from schemas.event import EventDict
from workers import telemetry
from workers.core.engine_time import shares
from workers.core.records import Event, Source
from workers.core.single_flight import SingleFlight, Work, deadline_of
from workers.errors import Unavailable
from workers.guard.guard import Refused, Request
from workers.guard.retries import ask_with_retries
from workers.moderation.engine_calls import Assessor, EngineCalls
from workers.redis.crash_notes import CrashNotes
from workers.tracing.stages import UNTRACED, Stages

log = structlog.get_logger(__name__)

Flight = asyncio.Future[None]
"""Done when all works of one micro-batch are settled."""
Turn = Callable[[Sequence[bytes]], AbstractAsyncContextManager[None]]


class Judge:
    """Single flight in front of the guard.

    Guarantee: every event gets an assessment or None. A revoked partition never cancels work for which another
    partition waits. If the engine fails, the judge retries for the event's timeout from the first attempt on, and for
    at least half of it if the event joined later. Between attempts it holds no turn at the engine. The engine's time
    for a content is charged to one of the events with this content whose partition was not revoked.
    """

    def __init__(
        self,
        guard: Assessor,
        notes: CrashNotes,
        *,
        batches_in_flight: int,
        is_current: Callable[[Source], bool],
        hangs_after_s: float,
        stages: Stages = UNTRACED,
    ) -> None:
        self._notes = notes
        self._is_current = is_current
        self._stages = stages
        self._calls = EngineCalls(guard, notes, batches_in_flight=batches_in_flight, hangs_after_s=hangs_after_s)
        self._single_flight: SingleFlight[Flight] = SingleFlight(is_current)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_full(self) -> bool:
        """Whether the next micro-batch would have to wait for a place."""
        return self._calls.is_full

    def suspects(self, events: Iterable[Event]) -> set[bytes]:
        """Return the keys of the contents that are judged alone, with nothing else at the engine."""
        return self._notes.suspects(event.content_key for event in events)

    async def judge(self, events: Sequence[Event]) -> None:
        """Assess the events, and retry each until its timeout. Equal content has the same content key.

        An assessment stays None if the event could not be judged, or if its partition was revoked before its turn. The
        latter is not an exception, because it would also fail the other events of the micro-batch. Blocks (awaits)
        until all events have an answer.

        Raises:
            Fatal: the engine hangs, or does not recover.
        """
        loop = asyncio.get_running_loop()
        flight, now = loop.create_future(), time.monotonic()
        join = self._single_flight.join
        works = [join(event.content_key, event.body, event.source, event.retry_s, flight, now) for event in events]
        own = [work for work in dict.fromkeys(works) if work.flight is flight]
        telemetry.JOINED.inc(len(works) - len(own))
        if own:
            task = loop.create_task(self._fly(flight, own))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        for joined in {work.flight for work in works}:
            await asyncio.shield(joined)
        for event, work in zip(events, works, strict=True):
            event.assessment = work.assessment
            # The first of the events that share a work is charged with it, if it will have a verdict.
            if work.engine_ms is not None and self._is_current(event.source):
                event.engine_ms, work.engine_ms = work.engine_ms, None

    async def _fly(self, flight: Flight, works: Sequence[Work[Flight]]) -> None:
        try:
            await self._judge(works)
        except BaseException as error:
            flight.set_exception(error)
            flight.exception()  # Marks it as retrieved: there may be no waiter left.
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
        """Judge with nothing else at the engine, so that a crash identifies this content."""
        if self._notes.is_unjudgeable(work.key):
            log.warning("not judged: this content crashed a worker", content=work.key.hex())
            self._single_flight.settle(work, None)
            return
        await self._ask([work], self._calls.turn_alone)
        if work.assessment is not None:
            await self._notes.absolve(work.key)

    async def _ask(self, works: Sequence[Work[Flight]], turn: Turn) -> None:
        """Call at least once, and retry until the deadline while the engine fails. Each attempt takes a turn."""

        async def attempt() -> None:
            async with turn([work.key for work in works if not work.is_settled]):
                await self._attempt(works)

        try:
            await ask_with_retries(attempt, lambda: deadline_of(works))
        except Unavailable as error:
            lost = self._settle_as_none(works)
            log.warning("events could not be judged", events=lost, error=str(error))

    async def _attempt(self, works: Sequence[Work[Flight]]) -> None:
        wanted = self._single_flight.begin(works, time.monotonic())
        if not wanted:
            return
        requests = [_request(work.body) for work in wanted]
        try:
            with self._stages.stage("engine", {"guardline.contents": len(wanted)}) as stage:
                answers, engine_s = await self._calls.assess(requests, deadline_of(wanted))
                tokens = [0 if isinstance(answer, Refused) else answer.get("tokens", 0) for answer in answers]
                stage.set({"guardline.tokens": sum(tokens)})
        except Unavailable:
            telemetry.FAILED_ATTEMPTS.labels("engine").inc()
            self._single_flight.fail(wanted, time.monotonic())
            raise
        for work, answer, engine_ms in zip(wanted, answers, shares(engine_s * 1000, tokens), strict=True):
            if isinstance(answer, Refused):
                log.warning("the guard refused an event", error=str(answer))
            self._single_flight.settle(work, None if isinstance(answer, Refused) else answer, engine_ms)


def _request(body: EventDict) -> Request:
    turns = tuple([(turn["role"], turn["text"]) for turn in body.get("context", ())])
    return Request(body["text"], body.get("role", "user"), turns)
