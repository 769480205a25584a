"""Asks a guard again while its engine fails.

Both the workers and `guardline annotate` ask that way; what it means to have no answer is their own matter.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from workers.errors import Unavailable

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
