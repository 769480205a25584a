"""Retries a guard while its engine fails, and retries its start while the engine is not available yet.

The workers and `guardline annotate` use it. They decide what follows if there is no answer.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from workers.errors import Unavailable

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")


async def ask_with_retries(ask: Callable[[], Awaitable[Answer]], deadline: Callable[[], float]) -> Answer:
    """Return the answer of `ask`. `ask` is called at least once, and again while it raises Unavailable.

    `deadline` returns the deadline by `time.monotonic`. It is called after each failure, so that a caller that first
    waits for its turn can set the deadline when its turn comes. A retry after the deadline is not tried.

    Raises:
        Unavailable: the last failure. Fatal, and every other error of `ask`: at once.
    """
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(Unavailable),
        wait=wait_random_exponential(multiplier=0.1, max=5),
        stop=lambda state: time.monotonic() + state.upcoming_sleep >= deadline(),
        reraise=True,
    ):
        with attempt:
            return await ask()
    raise AssertionError("unreachable")


async def start_with_retries(start: Callable[[], Awaitable[None]], within_s: float) -> None:
    """Start a guard, or another thing that may be Unavailable at first, within `within_s`. Each failure is logged.

    This is for commands. A worker waits in its `Lifecycle`, which handles signals and probes at the same time.

    Raises:
        Unavailable: the time is over. Misconfigured, and every other error of `start`: at once.
    """
    deadline = time.monotonic() + within_s

    async def attempt() -> None:
        try:
            await start()
        except Unavailable as error:
            log.warning("the start waits (worker.start_within_s)", reason=str(error))
            raise

    await ask_with_retries(attempt, lambda: deadline)
