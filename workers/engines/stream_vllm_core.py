"""One vLLM engine with its processes, and the sessions' chunks in flight at it.

A session is one resumable request of vLLM's engine core, which `StreamingInput` of vLLM's front end also becomes. The
front end itself is bypassed, as in `vllm_requests`. An engine core cannot recover: `stream_vllm` starts another one.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from workers.engines.stream import Floats
from workers.engines.stream_vllm_rows import COLUMNS, read_rows
from workers.errors import Misconfigured, Unavailable

WATCH_S = 0.25

QUIET_S = 1.0
"""After this time without an answer, a session of the engine itself asks whether the engine still works."""

CRASHED = "the vLLM engine process crashed; its last output is in the log above"


class Core:
    """Runs chunks of at most `ROWS` tokens at a started `AsyncLLM`. Chunks of one session run in order.

    Guarantee: every future of `send` gets a result or an error, also when the engine crashes or `fail` is called.
    """

    def __init__(self, llm: Any) -> None:
        self.llm = llm
        self._core = llm.engine_core
        self._template: Any = None
        self._numbers = itertools.count()
        self._waiting: dict[str, deque[tuple[int, int, asyncio.Future[Floats]]]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._answered = 0
        self.failure: str | None = None
        """Why nothing is answered any more."""

    async def prepare(self) -> None:
        """Let vLLM make and check one request, of which all others are copies, and begin to read the answers."""
        from vllm.sampling_params import SamplingParams

        # One sampled token ends a chunk; vLLM drops it when the next chunk comes.
        parameters = SamplingParams(temperature=0, max_tokens=1, detokenize=False, ignore_eos=True, logprobs=COLUMNS)
        self._template = self.llm.input_processor.process_inputs(
            "template",
            {"type": "token", "prompt_token_ids": [0]},
            parameters,
            supported_tasks=await self.llm.get_supported_tasks(),
            resumable=True,
        )
        self._reading = asyncio.create_task(self._read())

    @property
    def has_crashed(self) -> bool:
        """Whether the engine process has ended, or its answers can be read no more."""
        return bool(self.llm.errored) or (self._reading is not None and self._reading.done())

    async def unless_crashed(self, starting: Coroutine[Any, Any, None]) -> None:
        """Await a part of the start. vLLM itself may let it wait for ever when the engine crashes.

        Raises:
            Misconfigured: the engine has crashed.
        """
        task = asyncio.create_task(starting)
        try:
            while not task.done() and not self.has_crashed:
                await asyncio.wait([task], timeout=WATCH_S)
            if self.has_crashed:
                self.fail(CRASHED)
                raise Misconfigured(f"streams.vllm: {CRASHED}")
            task.result()
        finally:
            if task.cancel():
                await asyncio.wait([task])
            if not task.cancelled():
                task.exception()

    def begin(self) -> str:
        """Return the name of a new session. Names are never used again."""
        name = f"s{next(self._numbers)}"
        self._waiting[name] = deque()
        return name

    async def send(self, name: str, ids: Sequence[int], end: int) -> asyncio.Future[Floats]:
        """Send a chunk of valid ids, after which the session has `end` tokens. Return the future of its rows.

        Raises:
            Unavailable: the engine has failed, or the session has ended.
        """
        waiting = self._waiting.get(name)
        if self.failure is not None or waiting is None:
            raise Unavailable(self.failure or "the session has ended")
        answer: asyncio.Future[Floats] = asyncio.get_running_loop().create_future()
        waiting.append((len(ids), end, answer))
        request = copy.copy(self._template)
        request.request_id = name
        request.prompt_token_ids = list(ids)
        request.arrival_time = time.time()
        try:
            # Returns at once as long as the socket accepts data.
            await self._core.add_request_async(request)
        except Exception as error:  # vLLM raises errors of any type.
            raise Unavailable(f"vLLM failed: {error!r}") from error
        return answer

    async def end(self, name: str) -> None:
        """End a session and free its slot and blocks, also in the middle of a chunk. A second call does nothing.

        Chunks that are sent later reach the engine after this.
        """
        waiting = self._waiting.pop(name, None)
        if waiting is None:
            return
        for _, _, answer in waiting:
            if not answer.done():
                answer.set_exception(Unavailable("the session has ended"))
                answer.exception()  # Its caller may have been cancelled.
        if self.failure is None:
            await self._core.abort_requests_async([name])

    async def _read(self) -> None:
        while True:
            outputs = await self._core.get_output_async()
            for output in outputs.outputs:
                waiting = self._waiting.get(output.request_id)
                if waiting:
                    self._take(output, *waiting.popleft())

    def _take(self, output: Any, tokens: int, end: int, answer: asyncio.Future[Floats]) -> None:
        self._answered += 1
        if answer.done():
            return
        try:
            if output.new_logprobs is None:
                raise Unavailable(f"vLLM ended a chunk without an answer: {output.finish_reason}")
            answer.set_result(read_rows(output.new_logprobs, tokens, end))
        except Unavailable as error:
            answer.set_exception(error)

    async def watch(self, hangs_after_s: float) -> str:
        """Wait until the engine has crashed or hangs, and return a sentence that says which.

        vLLM itself calls an engine healthy that does not answer. So a session of one token asks the engine whenever no
        other one has got an answer lately.
        """
        asked: asyncio.Task[None] | None = None
        seen, quiet_s, before = self._answered, 0.0, time.monotonic()
        try:
            while True:
                await asyncio.sleep(WATCH_S)
                if self.has_crashed:
                    return CRASHED
                now = time.monotonic()
                # A longer sleep was this process's own: the answers of that time are not read yet.
                quiet_s += min(now - before, 2 * WATCH_S)
                before = now
                if self._answered != seen:
                    seen, quiet_s = self._answered, 0.0
                elif quiet_s > QUIET_S + hangs_after_s:
                    return f"the vLLM engine process hangs: it has answered nothing for {hangs_after_s:g} s"
                elif quiet_s > QUIET_S and (asked is None or asked.done()):
                    asked = asyncio.create_task(self._ask())
        finally:
            if asked is not None:
                asked.cancel()

    async def _ask(self) -> None:
        name = self.begin()
        try:
            await (await self.send(name, [0], 1))
        except Unavailable:
            await asyncio.sleep(WATCH_S)
        finally:
            await self.end(name)

    def fail(self, reason: str) -> None:
        """Fail all waiting and all later chunks. Only the first call counts."""
        self.failure = self.failure or reason
        for waiting in self._waiting.values():
            for _, _, answer in waiting:
                if not answer.done():
                    answer.set_exception(Unavailable(self.failure))
                    answer.exception()
        self._waiting.clear()
        if self._reading is not None and not self._reading.cancel() and not self._reading.cancelled():
            self._reading.exception()

    def kill(self) -> None:
        """Kill the processes, which may be stopped, and free what vLLM holds in this process. Blocks for a moment."""
        import psutil  # A dependency of vLLM.

        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
                process.join(timeout=10)
        self.llm.shutdown()

    def processes(self) -> list[Any]:
        """Return the engine's processes, each with its `pid`."""
        manager = self._core.resources.engine_manager
        return [process for process in getattr(manager, "processes", ()) if process.pid is not None]
