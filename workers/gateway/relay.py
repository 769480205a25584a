"""Passes a stream on: reads the model server's events, has every choice judged, and writes the client's events.

A task reads upstream, and one task a choice judges. All ends with the client's request, in whatever way that ends.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from schemas.policy import StreamPolicy
from workers import telemetry
from workers.gateway.choice import Choice, Finish, reason_of
from workers.gateway.faults import BadUpstream, slow_client, stopping, upstream_ended, upstream_timeout
from workers.gateway.held import Piece
from workers.gateway.parts import Api, Json, envelope_of, finish_of, usage_of
from workers.gateway.problems import Problem
from workers.gateway.rollback import Rollback
from workers.gateway.sse import DONE, KEEP_ALIVE, EventReader, event
from workers.gateway.upstream import ModelServer, choices_of, upstream_failed
from workers.settings.upstream_sections import Proxy, Upstream

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger(__name__)

WAITING_EVENTS = 64
"""How many events may wait for a slow client. Then nothing more is judged, and nothing more is read from upstream."""


class Relay:
    """One streamed answer."""

    def __init__(
        self,
        api: Api,
        choices: Sequence[Choice],
        server: ModelServer,
        response: httpx.Response,
        proxy: Proxy,
        upstream: Upstream,
        policy: StreamPolicy,
        prompt_s: float,
        rollback: Rollback | None = None,
    ) -> None:
        """Take over a stream that has begun.

        `prompt_s`: the seconds for which the judgement of the prompt held it. `rollback`: for a stream of one choice,
        what follows a cut.
        """
        self._api = api
        self._choices = choices
        self._server = server
        self._response = response
        self._proxy = proxy
        self._upstream = upstream
        self._replacement = policy.replacement
        self._shows_at_once = policy.hold_back.until == "none"
        self._prompt_s = prompt_s
        self._rollback = rollback
        self._undone: Choice | None = None
        """The choice that was cut last, until something of another attempt takes the place of its cut."""
        self._is_stopped = False
        self._out: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING_EVENTS)
        self._flow = [_Flow() for _ in choices]
        self._seen: set[int] = set()
        self._envelope: Json = {}
        self._usage: Json | None = None
        self._first_arrived: float | None = None
        self._is_first_shown = False
        self._reader: asyncio.Task[None] | None = None
        self._driver: asyncio.Task[None] | None = None
        self.problem: Problem | None = None

    async def events(self) -> AsyncIterator[bytes]:
        """Give the events of the client as they may be shown. Call `close` when it ends, in whatever way."""
        self._driver = asyncio.create_task(self._drive())
        while True:
            try:
                async with asyncio.timeout(self._proxy.keep_alive_s):
                    data = await self._out.get()
            except TimeoutError:
                if self._driver.done():
                    self._driver.result()
                    raise RuntimeError("a stream has no end") from None
                yield KEEP_ALIVE
                continue
            waiting = [data]
            while not self._out.empty():
                waiting.append(self._out.get_nowait())
            if written := b"".join(one for one in waiting if one is not None):
                yield written
            if waiting[-1] is None:
                return

    def stop(self) -> None:
        """End the stream with an error, because the gateway ends."""
        self._is_stopped = True
        self._fail(stopping())

    async def close(self) -> None:
        """End everything. A second call does nothing."""
        if self._driver is not None:
            self._driver.cancel()
            with suppress(asyncio.CancelledError):
                await self._driver

    async def _drive(self) -> None:
        try:
            async with asyncio.timeout(self._upstream.answer_s):
                await self._relay()
        except TimeoutError:
            answer_s = self._upstream.answer_s
            if self._out.full():
                self.problem = slow_client(answer_s)
            else:
                self.problem = upstream_timeout("end of its answer", answer_s, "answer_s")
        await self._response.aclose()
        if self._undone is not None and not self._is_stopped:
            self.problem = None
            await self._write_cut(self._undone)
        if self.problem is not None:
            await self._out.put(event(self.problem.document()))
        else:
            if self._usage is not None:
                await self._out.put(event({**self._envelope, "choices": [], "usage": self._usage}))
            await self._out.put(DONE)
        await self._out.put(None)

    async def _relay(self) -> None:
        if self.problem is not None:
            return  # Stopped before it began.
        try:
            await self._attempt()
            tried: Choice | None = None
            while (cut := self._undone) is not None and cut is not tried and self.problem is None:
                tried = cut
                await self._attempt_again(cut)
        except ExceptionGroup:
            log.exception("an answer cannot be judged, and ends")
            self.problem = Problem(500, "the gateway failed", code="internal_error")

    async def _attempt(self) -> None:
        await self._all(self._read(), *map(self._judge, self._choices, self._flow))

    async def _all(self, reads: Coroutine[Any, Any, None], *judge: Coroutine[Any, Any, None]) -> None:
        """Run the task that waits for upstream, which `_fail` cancels, and those that judge."""
        async with asyncio.TaskGroup() as group:
            self._reader = group.create_task(reads)
            for one in judge:
                group.create_task(one)

    async def _attempt_again(self, cut: Choice) -> None:
        """Have the model server go on from what was shown. If it cannot, `_undone` stays: the client gets the cut."""
        assert self._rollback is not None
        await self._response.aclose()
        await cut.close()
        if self.problem is not None:
            return  # Stopped meanwhile.
        before = self._response
        await self._all(self._ask_again(self._rollback))
        if self._response is not before and self.problem is None:
            await self._attempt()

    async def _ask_again(self, rollback: Rollback) -> None:
        if (attempt := await rollback.again()) is None:
            return
        choice, self._response = attempt
        self._choices, self._flow, self._seen, self._usage = [choice], [_Flow()], set(), None

    async def _read(self) -> None:
        reader = EventReader(self._upstream.max_event_bytes)
        try:
            async for data in self._server.chunks(self._response):
                for text in reader.feed(data):
                    if await self._event(text):
                        return self._ended()
            for text in reader.end():
                await self._event(text)
            self._ended()
        except Problem as problem:
            self._fail(problem)

    def _ended(self) -> None:
        """Take the end of upstream's events: each choice that has begun must have ended."""
        if not self._seen:
            self._fail(upstream_ended("it has no choices"))
        elif any(self._choices[index].finish is None and not self._choices[index].is_over for index in self._seen):
            self._fail(upstream_ended("it has no finish_reason"))
        else:
            self._end_flows()  # Choices that upstream never began have no text.

    def _fail(self, problem: Problem) -> None:
        if self.problem is None:
            self.problem = problem
        self._end_flows()
        if self._reader is not None and self._reader is not asyncio.current_task():
            self._reader.cancel()

    def _end_flows(self) -> None:
        for flow in self._flow:
            flow.is_ended = True
            flow.arrived.set()

    async def _event(self, text: str) -> bool:
        """Take one event. Returns whether it is the last."""
        if text.strip() == "[DONE]":
            return True
        try:
            chunk: Any = json.loads(text)
        except (ValueError, RecursionError):
            raise BadUpstream("an event is not JSON") from None
        if not isinstance(chunk, dict):
            raise BadUpstream("an event is not an object")
        if chunk.get("error"):
            failed = upstream_failed(502, chunk["error"])
            failed.body.code = failed.body.code or "upstream_error"
            raise failed
        if self._rollback is None or not self._rollback.has_begun:  # All chunks of an answer have one id.
            self._envelope = envelope_of(chunk) or self._envelope
        usage = usage_of(chunk)
        if chunk.get("choices") in (None, []):
            self._usage = usage or self._usage
            return False
        for index, part in choices_of(chunk, len(self._choices)):
            choice, flow = self._choices[index], self._flow[index]
            self._seen.add(index)
            if choice.finish is not None or choice.is_over:
                continue  # After its end a choice has no text, and after its cut nobody wants it.
            if self._rollback is not None and self._rollback.joint is not None:
                part = self._rollback.joint.take(part)
            choice.held.add(part, "delta")
            if self._first_arrived is None and choice.held.arrived:
                self._first_arrived = time.monotonic()
            if (reason := finish_of(part)) is not None:
                choice.held.end()
                choice.finish = Finish(reason, {} if usage is None else {"usage": usage})
            flow.arrived.set()
            while choice.held.arrived - choice.held.taken > self._proxy.max_waiting_chars and not choice.is_over:
                flow.room.clear()
                await flow.room.wait()
        return False

    async def _judge(self, choice: Choice, flow: _Flow) -> None:
        while True:
            await flow.arrived.wait()
            flow.arrived.clear()
            if self._shows_at_once:
                await self._show(choice, choice.held.release(choice.held.arrived))
            while choice.held.arrived > choice.held.taken and choice.cut is None:
                await choice.judge()
                await self._show(choice, choice.released())
                flow.room.set()
            if choice.cut is None:
                await self._show(choice, choice.released())  # Parts without text, such as the role.
                if choice.held.arrived > choice.held.taken:
                    continue  # The client was slow, and more has arrived meanwhile.
                if choice.finish is not None and self.problem is None:
                    await choice.end()
                    await self._show(choice, choice.released())
            if choice.cut is not None or choice.finish is not None or flow.is_ended:
                break
        choice.is_over = True
        flow.room.set()
        if choice.cut is not None:
            if all(each.is_over for each in self._choices) and self._reader is not None:
                self._reader.cancel()  # Nobody wants the rest: upstream stops when its connection closes.
            telemetry.GATEWAY_CUTS.labels(choice.cut.reason).inc()
            if self._rollback is not None and self.problem is None and self._rollback.may_undo(choice):
                self._undone = choice
            else:
                await self._write_cut(choice)
        elif choice.finish is not None and self.problem is None:
            await self._finish(choice, choice.finish)

    async def _write_cut(self, choice: Choice) -> None:
        if self._replacement:
            await self._show(choice, [Piece(self._text(self._replacement))])
        await self._finish(choice, Finish("content_filter", {}))

    def _text(self, text: str) -> Json:
        return {"text": text} if self._api == "completions" else {"content": text}

    async def _show(self, choice: Choice, pieces: Sequence[Piece]) -> None:
        for piece in pieces:
            if self._rollback is not None and not self._rollback.shown.note(piece.fields):
                continue
            if "role" not in piece.fields:
                self._undone = None
            if not self._is_first_shown and self._first_arrived is not None:
                self._is_first_shown = True
                telemetry.GATEWAY_FIRST_TEXT.observe(self._prompt_s + time.monotonic() - self._first_arrived)
            await self._put(choice, piece.fields, piece.logprobs, None, {})

    async def _finish(self, choice: Choice, finish: Finish) -> None:
        fields: Json = {} if self._api == "chat" else {"text": ""}
        more: Json = {} if (why := reason_of(choice)) is None else {"guardline": why}
        logprobs = choice.held.rest_of_logprobs() if choice.cut is None else None
        self._undone = None
        await self._put(choice, fields, logprobs, finish.reason, more, finish.fields)

    async def _put(
        self, choice: Choice, fields: Json, logprobs: Any, reason: str | None, more: Json, beside: Json | None = None
    ) -> None:
        shown = {"delta": fields} if self._api == "chat" else fields
        body = {"index": choice.index, **shown, "logprobs": logprobs, "finish_reason": reason, **more}
        await self._out.put(event({**self._envelope, "choices": [body], **(beside or {})}))


class _Flow:
    """What the reader and the judge of a choice tell each other."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.room = asyncio.Event()
        self.is_ended = False
