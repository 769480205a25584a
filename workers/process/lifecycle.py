"""A worker process from its start to its end: `starting -> running -> draining -> stopped | failed`.

It does not know what the worker does. It must never wait without a time limit for a part that does not close.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from enum import StrEnum
from traceback import format_exception
from types import TracebackType
from typing import Any, ParamSpec, Protocol, Self, TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, wait_random_exponential

from workers import telemetry
from workers.errors import Fatal, GuardlineError, Unavailable
from workers.process.health import served
from workers.settings import Http

log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

CLOSE_S = 5.0
"""How long one part may take to close, unless it has its own limit."""

BACK_OFF_MAX_S = 2.0
"""The longest wait between two attempts of a start that waits."""

SAY_AGAIN_S = 5.0
"""How often a start that waits logs the reason."""


class State(StrEnum):
    """The states of a worker."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


class Part(Protocol):
    """What runs from the start of a worker to its end, and can fail in between."""

    async def start(self) -> None:
        """Start. Raises `Unavailable` if a further attempt may succeed."""

    async def watch(self) -> None:
        """Run until it is cancelled. Raises if the part fails."""

    async def close(self) -> None:
        """End, also if it has not started."""


class _EndedError(Exception):
    """Unwinds a start that has to end."""


class Lifecycle:
    """Owns the state, the signals, the background tasks, the order of closing, and the probes of one worker.

        async with Lifecycle(settings.http, start_within_s=60) as life:
            part = await life.wait_for(connect)
            life.close_with(part.close)
            life.watch(part.watch())
            await life.run(drain=part.drain, left=lambda: part.left)

    The first signal drains the worker, or ends a start that is not finished. A second signal ends the process at once
    with exit code 1. SIGINT and SIGHUP stay ignored if the process inherited them as ignored, as a background job of a
    shell or under `nohup`.

    Guarantee: however the worker ends, all parts given to `close_with` and `watch` are closed in reverse order, each
    within its time limit, and one log line says why. The block raises the failure as a `GuardlineError`.
    """

    def __init__(self, http: Http, *, start_within_s: float) -> None:
        self._http = http
        self._start_within_s = start_within_s
        self._waited_s = 0.0
        self._state = State.STARTING
        self._failure: BaseException | None = None
        self._bug: Exception | None = None
        self._cause = "the work is over"
        self._drain: Callable[[], None] = lambda: None
        self._left: Callable[[], int] = lambda: 0
        self._drain_began: float | None = None
        self._parts = AsyncExitStack()

    @property
    def state(self) -> State:
        """The current state."""
        return self._state

    @property
    def is_alive(self) -> bool:
        """Whether the supervisor should let the process run: always, except after a failure."""
        return self._state is not State.FAILED

    @property
    def is_ready(self) -> bool:
        """Whether the worker processes records: the start is over, and no drain has begun."""
        return self._state is State.RUNNING

    async def __aenter__(self) -> Self:
        """Listen to signals and serve the probes.

        Raises:
            Misconfigured: the port is taken.
        """
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._enter(State.STARTING)
        self._listen()
        try:
            await self._parts.enter_async_context(
                served(self._http, is_alive=lambda: self.is_alive, is_ready=lambda: self.is_ready)
            )
        except GuardlineError as error:
            await self.__aexit__(type(error), error, error.__traceback__)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Close everything, and log why the worker ended."""
        if error is not None and not isinstance(error, _EndedError):
            self.end(error)
        drain_s = None if self._drain_began is None else round(time.monotonic() - self._drain_began, 2)
        left = self._left()
        await self._parts.aclose()
        if self._failure is None:
            self._enter(State.STOPPED)
        self._say_the_end(drain_s, left)
        if self._failure is not None:
            raise self._failure
        return True

    async def wait_for(self, call: Callable[[], Awaitable[T]]) -> T:
        """Repeat the call while it raises `Unavailable`. Any other error ends the start.

        All calls of a start together may spend `start_within_s` on failed attempts and on the waits between them.

        Raises:
            Unavailable: that time is over.
        """
        waited_s, say_at_s = 0.0, 0.0

        def say(attempt: RetryCallState) -> None:
            nonlocal waited_s, say_at_s
            waited_s = attempt.seconds_since_start or 0.0
            if attempt.outcome is not None and waited_s >= say_at_s:
                say_at_s = waited_s + SAY_AGAIN_S
                log.warning("the start waits (worker.start_within_s)", reason=str(attempt.outcome.exception()))

        async def attempt() -> T:
            return await call()

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=0.2, max=BACK_OFF_MAX_S),
            stop=stop_after_delay(max(0.0, self._start_within_s - self._waited_s)),
            before_sleep=say,
            reraise=True,
        )
        task: asyncio.Future[T] = asyncio.ensure_future(retrying(attempt))
        # Does not cancel this task: a client that is connecting may swallow the cancellation.
        both: set[asyncio.Future[Any]] = {task, self._ended}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            task.cancel()
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
            raise _EndedError
        self._waited_s += waited_s
        try:
            return task.result()
        except Unavailable as error:
            raise Unavailable(f"{error} (waited for {self._waited_s:.0f} s: worker.start_within_s)") from error

    def close_with(self, close: Callable[[], Awaitable[object]], within_s: float = CLOSE_S) -> None:
        """Close a part at the end, before the parts that were added earlier. Give up after `within_s`."""
        self._parts.push_async_callback(self._close, close, within_s)

    def watch(self, work: Coroutine[None, None, None]) -> None:
        """Run a background task until the end. An error that it raises fails the worker."""
        task = self._loop.create_task(work)
        task.add_done_callback(self._watched)

        async def cancel() -> None:
            task.cancel()
            await asyncio.wait([task])

        self.close_with(cancel)

    async def start(self, part: Part) -> None:
        """Start a part as `wait_for` does, watch it, and close it at the end.

        Raises:
            Unavailable: see `wait_for`.
        """
        self.close_with(part.close)
        await self.wait_for(part.start)
        self.watch(part.watch())

    def from_thread(self, function: Callable[P, None]) -> Callable[P, None]:
        """Return a callable for any thread that runs `function` in the event loop. Its errors fail the worker.

        Never blocks.
        """

        def run(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                function(*args, **kwargs)
            except Exception as error:
                # The event loop would only log the error, and the work would stay pending for ever.
                self.end(error)

        def call(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                self._loop.call_soon_threadsafe(lambda: run(*args, **kwargs))
            except RuntimeError:
                if not self._loop.is_closed():  # After the loop has closed, no code is left to call.
                    raise

        return call

    async def run(self, *, drain: Callable[[], None], left: Callable[[], int]) -> None:
        """Be running until `end`. The first signal calls `drain`; `left` counts the unfinished records or requests."""
        self._drain, self._left = drain, left
        if not self._ended.done():
            self._enter(State.RUNNING)
            await self._ended

    def end(self, error: BaseException | None = None) -> None:
        """End the worker, because its work is finished or because it failed. Only the first call counts."""
        if self._ended.done():
            return
        if error is not None:
            self._fail(error)
        self._ended.set_result(None)

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        if isinstance(error, Exception) and not isinstance(error, GuardlineError):
            self._failure, self._bug = Fatal(f"an unexpected error: {error!r}"), error
        self._enter(State.FAILED)

    def _enter(self, state: State) -> None:
        self._state = state
        telemetry.STATE.state(state)

    def _watched(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.end(error)

    async def _close(self, close: Callable[[], Awaitable[object]], within_s: float) -> None:
        task = asyncio.ensure_future(close())
        done, _ = await asyncio.wait([task], timeout=within_s)
        if not done:
            task.cancel()
            log.warning("a part did not close in time", part=_name(close), within_s=within_s)
        elif not task.cancelled() and (error := task.exception()) is not None and self._failure is None:
            self._fail(error)

    def _listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number is signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
                self._loop.add_signal_handler(number, self._heard, number)

    def _heard(self, number: signal.Signals) -> None:
        if self._state is State.STARTING:
            self._cause = f"{number.name} while it started"
            self._enter(State.DRAINING)
            self.end()
        elif self._state is State.RUNNING:
            self._cause = number.name
            self._enter(State.DRAINING)
            self._drain_began = time.monotonic()
            log.info("draining", signal=number.name, unfinished=self._left())
            self._drain()
        else:
            self._cause = f"{number.name} while it was {self._state}: ended at once"
            self._enter(State.FAILED)
            self._say_the_end(None, self._left())
            # Daemon threads and open connections would delay a normal exit.
            os._exit(1)

    def _say_the_end(self, drain_s: float | None, left: int) -> None:
        say = log.info if self._state is State.STOPPED else log.error
        cause = self._cause if self._failure is None else str(self._failure) or repr(self._failure)
        bug = {} if self._bug is None else {"traceback": "".join(format_exception(self._bug))}
        say("worker ended", state=self._state, cause=cause, drain_s=drain_s, uncommitted=left, **bug)


def _name(function: object) -> str:
    return getattr(function, "__qualname__", repr(function))
