"""Asks a guard again while its engine fails, and starts one again while its engine does not answer yet.

Both the workers and `guardline annotate` ask that way; what it means to have no answer is their own matter.
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


async def ask_with_patience(ask: Callable[[], Awaitable[Answer]], deadline: Callable[[], float]) -> Answer:
    """Give the answer of `ask`, which is called at least once, and again while it raises Unavailable.

    `deadline` gives the end of patience by `time.monotonic`. It is asked for after each failure: a caller that waits
    for its turn first may set it when its turn comes. A wait that would end past it is not begun.

    Raises:
        Unavailable: the last failure. Fatal: and whatever else `ask` raises, at once.
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


async def start_with_patience(start: Callable[[], Awaitable[None]], within_s: float) -> None:
    """Start a guard or whatever else may be Unavailable at first, for `within_s` at most; each wait is in the log.

    For commands: the start of a worker waits in its `Lifecycle`, which listens to signals and probes meanwhile.

    Raises:
        Unavailable: the time is over. Misconfigured: and whatever else `start` raises, at once.
    """
    deadline = time.monotonic() + within_s

    async def attempt() -> None:
        try:
            await start()
        except Unavailable as error:
            log.warning("the start waits (worker.start_within_s)", reason=str(error))
            raise

    await ask_with_patience(attempt, lambda: deadline)
