"""The proxy: judges a prompt, has the model server answer it, and judges the answer before a client sees it.

Guarantee: a prompt that is cut, or that cannot be judged, does not reach the model server, unless the tenant's policy
allows the latter. However a request ends, its call of the model server ends with it, and so do its sessions.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple, TypeAlias, TypeVar

import structlog
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from schemas.policy import StreamPolicy
from schemas.stream import Intervention, StreamVerdict
from workers import telemetry
from workers.gateway import turns as turns_of
from workers.gateway.bodies import ChatBody, CompletionBody
from workers.gateway.choice import Choice, reason_of
from workers.gateway.decided import Terms, records_of
from workers.gateway.failures import Failures
from workers.gateway.faults import not_judged
from workers.gateway.guarding import LiveGuard
from workers.gateway.parts import Api, Json
from workers.gateway.problems import Problem
from workers.gateway.relay import Relay
from workers.gateway.rollback import Attempt, Rollback, may_help
from workers.gateway.sse import DONE, compact, event
from workers.gateway.turns import Prompt
from workers.gateway.upstream import ModelServer, Refused, to_client
from workers.gateway.whole import judged
from workers.policy.streams import Cut
from workers.settings.upstream_sections import Proxy, Upstream

log = structlog.get_logger(__name__)

T = TypeVar("T")
Publish: TypeAlias = Callable[[StreamVerdict, Intervention | None], None]

PATHS: dict[Api, str] = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
STREAM_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
CLIENT_GONE = 499
"""nginx's status of a client that closed its connection. Nobody reads it; the metric of requests has it."""


class _Asked(NamedTuple):
    """A request, as the proxy understands it."""

    api: Api
    body: Json
    prompts: list[Prompt]
    """Prompt p has the choices p × n to p × n + n - 1."""
    n: int
    is_stream: bool


class ModelProxy:
    """The proxy before one model server."""

    def __init__(
        self,
        guard: LiveGuard,
        server: ModelServer,
        terms_of: Callable[[str], Terms],
        proxy: Proxy,
        upstream: Upstream,
        failures: Failures,
        publish: Publish | None = None,
    ) -> None:
        """`terms_of` gives the rules of a tenant. `failures` logs streams that fail. `publish` takes what was decided,
        and must not block.
        """
        self._guard = guard
        self._server = server
        self._terms_of = terms_of
        self._publish = publish
        self._proxy = proxy
        self._upstream = upstream
        self._relays: set[Relay] = set()
        self._failures = failures
        self._is_stopped = False

    def stop(self) -> None:
        """End every stream with an error event, also those that begin later, because the gateway ends."""
        self._is_stopped = True
        for relay in self._relays:
            relay.stop()

    async def models(self, request: Request, path: str) -> Response:
        """Pass a request for the list of models on."""
        answered = await _unless_gone(request, self._server.json("GET", path, None, request.headers))
        return _json(answered.body, answered.headers)

    async def chat(self, request: Request, body: ChatBody, tenant: str) -> Response:
        """Answer `/v1/chat/completions`."""
        sent = body.model_dump(exclude_unset=True)
        turns_of.check_fields(sent)
        asked = [turns_of.of_chat(sent["messages"], self._proxy)]
        return await self._answer(request, _Asked("chat", sent, asked, body.n or 1, body.stream is True), tenant)

    async def complete(self, request: Request, body: CompletionBody, tenant: str) -> Response:
        """Answer `/v1/completions`."""
        sent = body.model_dump(exclude_unset=True)
        turns_of.check_fields(sent)
        prompts = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        asked = [Prompt(prompt) for prompt in prompts]
        return await self._answer(request, _Asked("completions", sent, asked, body.n or 1, body.stream is True), tenant)

    async def _answer(self, request: Request, asked: _Asked, tenant: str) -> Response:
        count = len(asked.prompts) * asked.n
        if count > self._proxy.max_choices:
            raise Problem(
                400, f"n: more than {self._proxy.max_choices} answers in all (gateway.proxy.max_choices)", param="n"
            )
        async with AsyncExitStack() as stack:
            work = self._begin(request, asked, self._terms_of(tenant), stack)
            try:
                response = await _unless_gone(request, work)
            except ExceptionGroup:
                log.exception("a request cannot be judged")
                raise Problem(500, "the gateway failed", code="internal_error") from None
            if isinstance(response, _Streaming):
                response.cleanup = stack.pop_all()
            return response

    async def _begin(self, request: Request, asked: _Asked, terms: Terms, stack: AsyncExitStack) -> Response:
        policy = terms.rules
        began = time.monotonic()
        choices = [self._choice(asked, index, terms, stack) for index in range(len(asked.prompts) * asked.n)]
        if (cut := await self._prompts(choices, asked)) is not None:
            telemetry.GATEWAY_CUTS.labels(cut.reason).inc()
            if cut.reason == "unavailable":
                raise not_judged()
            return self._cut_prompt(asked, choices, cut, policy)
        prompt_s = time.monotonic() - began
        try:
            return await self._passed_on(request, asked, choices, terms, prompt_s, stack)
        except Refused as refused:
            await refused.judge(choices[0].permits)
            raise

    async def _passed_on(
        self,
        request: Request,
        asked: _Asked,
        choices: Sequence[Choice],
        terms: Terms,
        prompt_s: float,
        stack: AsyncExitStack,
    ) -> Response:
        """Have the model server answer."""
        policy, path = terms.rules, PATHS[asked.api]
        if not asked.is_stream:
            answered = await self._server.json("POST", path, asked.body, request.headers)
            shown = await judged(asked.api, choices, answered.body, policy)
            if len(choices) == 1 and may_help(choices[0].cut):
                shown = await self._asked_again(request, asked, choices[0], terms, stack) or shown
            return _json(shown, answered.headers)
        response = await self._server.stream(path, asked.body, request.headers)
        stack.push_async_callback(response.aclose)
        rollback = await self._rollback(request, asked, terms, stack) if len(choices) == 1 else None
        relay = Relay(
            asked.api, choices, self._server, response, self._proxy, self._upstream, policy, prompt_s, rollback
        )
        self._relays.add(relay)
        if self._is_stopped:
            relay.stop()
        stack.callback(self._relays.discard, relay)
        stack.callback(self._ended, relay, path)
        stack.push_async_callback(relay.close)
        return _Streaming(relay, to_client(response.headers))

    def _ended(self, relay: Relay, path: str) -> None:
        """Log a stream that ended with an error event: its status was 200."""
        if relay.problem is not None:
            self._failures.note(relay.problem, path, time.monotonic())

    def _choice(self, asked: _Asked, index: int, terms: Terms, stack: AsyncExitStack) -> Choice:
        choice = Choice(asked.api, index, self._guard.open(terms.rules))
        stack.push_async_callback(choice.close)
        stack.callback(self._decided, choice, terms)
        return choice

    async def _asked_again(
        self, request: Request, asked: _Asked, cut: Choice, terms: Terms, stack: AsyncExitStack
    ) -> Json | None:
        """Ask for another answer in the place of one that was cut. Gives the first that is not cut, or None."""
        for _ in range(self._proxy.retries):
            await cut.close()
            choice = self._choice(asked, 0, terms, stack)
            if await choice.prompt(asked.prompts[0]) is not None:
                return None
            try:
                answered = await self._server.json("POST", PATHS[asked.api], asked.body, request.headers)
                shown = await judged(asked.api, [choice], answered.body, terms.rules)
            except Problem:
                return None  # The client gets the cut of the answer that there is.
            if choice.cut is None:
                return shown
            if not may_help(choice.cut):
                return None
            cut = choice
        return None

    async def _rollback(self, request: Request, asked: _Asked, terms: Terms, stack: AsyncExitStack) -> Rollback | None:
        """Give what follows a cut of a streamed answer. Its calls and sessions end with the stack."""
        if not self._proxy.retries or terms.rules.hold_back.until == "none":
            return None
        attempts = await stack.enter_async_context(AsyncExitStack())

        async def ask(body: Json, shown: str) -> Attempt:
            choice = self._choice(asked, 0, terms, attempts)
            prompt = asked.prompts[0]
            if await choice.prompt(prompt._replace(begun=prompt.begun + shown)) is not None:
                raise not_judged()
            response = await self._server.stream(PATHS[asked.api], body, request.headers)
            attempts.push_async_callback(response.aclose)
            return choice, response

        continues = self._upstream.continues_chats
        return Rollback(asked.api, asked.body, self._proxy.retries, ask, continues_chats=continues)

    def _decided(self, choice: Choice, terms: Terms) -> None:
        """Note what was decided about a choice, once its request has ended in whatever way."""
        if choice.cut is not None:
            event = "cut a prompt" if choice.cut.reason == "prompt" else "cut an answer"
            log.info(event, id=choice.id, tenant=terms.tenant, **(reason_of(choice) or {}))
        if self._publish is not None:
            self._publish(*records_of(choice, terms, int(time.time() * 1000)))

    async def _prompts(self, choices: Sequence[Choice], asked: _Asked) -> Cut | None:
        """Judge the prompt of every choice: its session judges the answer in the same conversation."""
        async with asyncio.TaskGroup() as group:
            for choice in choices:
                group.create_task(choice.prompt(asked.prompts[choice.index // asked.n]))
        return next((choice.cut for choice in choices if choice.cut is not None), None)

    def _cut_prompt(self, asked: _Asked, choices: Sequence[Choice], cut: Cut, policy: StreamPolicy) -> Response:
        if self._proxy.on_cut_prompt == "error":
            param = "messages" if asked.api == "chat" else "prompt"
            raise Problem(400, "the policy refuses the prompt", code="content_filter", param=param)
        envelope: Json = {
            "id": ("chatcmpl-" if asked.api == "chat" else "cmpl-") + uuid.uuid4().hex,
            "object": _object(asked),
            "created": int(time.time()),
            "model": asked.body["model"],
        }
        text: Json = {"text": policy.replacement}
        if asked.api == "chat":
            message = {"role": "assistant", "content": policy.replacement}
            text = {"delta" if asked.is_stream else "message": message}
        answer: list[Json] = []
        for choice in choices:
            choice.cut = choice.cut or cut
            end = {"logprobs": None, "finish_reason": "content_filter", "guardline": reason_of(choice)}
            answer.append({"index": choice.index, **text, **end})
        if not asked.is_stream:
            usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
            return _json({**envelope, "choices": answer, "usage": usage}, {})
        events = b"".join(event({**envelope, "choices": [choice]}) for choice in answer)
        return Response(events + DONE, media_type="text/event-stream", headers=STREAM_HEADERS)


class _Streaming(StreamingResponse):
    """A stream, which cleans up after itself however it ends, also if it never began."""

    def __init__(self, relay: Relay, headers: dict[str, str]) -> None:
        super().__init__(relay.events(), media_type="text/event-stream", headers={**headers, **STREAM_HEADERS})
        self.cleanup = AsyncExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        telemetry.GATEWAY_STREAMS.inc()
        try:
            await super().__call__(scope, receive, send)
        finally:
            telemetry.GATEWAY_STREAMS.dec()
            # A client that goes away cancels this task, also while it cleans up.
            await asyncio.shield(asyncio.ensure_future(self.cleanup.aclose()))


def _object(asked: _Asked) -> str:
    if asked.api == "completions":
        return "text_completion"
    return "chat.completion.chunk" if asked.is_stream else "chat.completion"


def _json(body: Json, headers: dict[str, str]) -> Response:
    return Response(compact(body), media_type="application/json", headers=headers)


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Wait for an answer, and cancel the work on it if the client closes its connection.

    Raises:
        Problem: the client is gone.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Problem(CLIENT_GONE, "the client closed its connection", code="client_gone")
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
