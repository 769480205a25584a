"""Sends prompts to vLLM's engine core, and hands its answers to the waiting calls.

It bypasses vLLM's front end, whose queue, output object and task for each request took most of this process's time for
a message. It must never let a call wait for an engine that has crashed.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from workers.errors import GuardlineError, Unavailable

WHOLE = ("stop", "length")
"""The finish reasons of a complete answer. A request that vLLM aborted also ends, without log-probabilities."""


@dataclass(slots=True, eq=False)
class Answer:
    """The engine's answer to one prompt."""

    token_ids: list[int] = field(default_factory=list)
    last: Any = None
    """vLLM's `EngineCoreOutput` of the last token."""

    @property
    def ended_by(self) -> str:
        """The finish reason."""
        return str(self.last.finish_reason)


@dataclass(slots=True, eq=False)
class _Call:
    answers: list[Answer]
    left: int
    done: asyncio.Future[None]


class Requests:
    """The requests in flight at one engine core.

    Guarantee: every call of `ask` returns answers or raises, also when the engine crashes or `fail` is called.
    """

    def __init__(self, core: Any) -> None:
        self._core = core
        self._numbers = itertools.count()
        self._waiting: dict[str, tuple[_Call, Answer]] = {}
        self.failure: GuardlineError | None = None
        """Why no request is answered any more."""
        self.answered = 0
        """Prompts answered so far."""

    async def ask(self, template: Any, prompts: Sequence[Sequence[int]]) -> list[Answer]:
        """Return the answers to the prompts, in order. `template` is vLLM's request without its own id and tokens.

        A cancelled call is aborted in the engine as well.

        Raises:
            Unavailable: vLLM aborted a request. Or the error with which `fail` was called.
        """
        if self.failure is not None:
            raise self.failure
        if not prompts:
            return []
        call = _Call([Answer() for _ in prompts], len(prompts), asyncio.get_running_loop().create_future())
        now = time.time()
        ids: list[str] = []
        try:
            for prompt, answer in zip(prompts, call.answers, strict=True):
                request = copy.copy(template)
                request.request_id = name = f"g{next(self._numbers)}"
                request.prompt_token_ids = list(prompt)
                request.arrival_time = now
                self._waiting[name] = (call, answer)
                ids.append(name)
                # Returns at once as long as the socket accepts data: no iteration of the event loop for each prompt.
                await self._core.add_request_async(request)
            await call.done
        except BaseException:
            await self._forget(ids)
            raise
        for answer in call.answers:
            if answer.ended_by not in WHOLE:
                raise Unavailable(f"vLLM ended a request without an answer: {answer.ended_by}")
        return call.answers

    async def _forget(self, ids: Sequence[str]) -> None:
        left = [name for name in ids if self._waiting.pop(name, None) is not None]
        if left and self.failure is None:
            await self._core.abort_requests_async(left)

    async def read(self) -> None:
        """Hand out the engine's answers, for ever.

        Raises:
            Exception: vLLM's own, when the engine has crashed.
        """
        while True:
            outputs = await self._core.get_output_async()
            for output in outputs.outputs:
                self._take(output)

    def _take(self, output: Any) -> None:
        waiting = self._waiting.get(output.request_id)
        if waiting is None:
            return  # Its call was cancelled.
        call, answer = waiting
        answer.token_ids += output.new_token_ids
        answer.last = output
        if output.finish_reason is None:
            return
        del self._waiting[output.request_id]
        self.answered += 1
        call.left -= 1
        if not call.left and not call.done.done():
            call.done.set_result(None)

    def fail(self, error: GuardlineError) -> None:
        """Fail all waiting and all later calls with an error. Only the first call of `fail` counts."""
        if self.failure is None:
            self.failure = error
        for call, _ in self._waiting.values():
            if not call.done.done():
                call.done.set_exception(self.failure)
        self._waiting.clear()
