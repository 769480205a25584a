"""Asks a guard again while its engine fails, and by halves when it refuses.

Both the workers and `guardline annotate` ask that way; what it means to have no answer is their own matter.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from workers.engines.engine import DEADLINE
from workers.errors import Unavailable, Unjudgeable

Item = TypeVar("Item")
Answer = TypeVar("Answer")


async def ask_with_patience(
    ask: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
    items: Sequence[Item],
    left_s: Callable[[float], float],
) -> list[Answer | Unavailable | Unjudgeable]:
    """Give an answer for each item, or in its place the error that it has instead.

    `ask` is called at least once, and again while it raises Unavailable and the next wait is shorter than `left_s`,
    which is given the seconds since these items were first asked about. When it refuses items that came together, it is
    asked about each half of them: one bad prompt fails a whole batch, and harms nobody else then. Of 256 the one is
    found in 16 calls. The engine is told the deadline, and makes no attempt of its own past it.

    Raises:
        Fatal: and whatever else `ask` raises.
    """
    token = DEADLINE.set(math.inf)
    try:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=0.1, max=5),
            stop=lambda state: state.upcoming_sleep >= left_s(state.seconds_since_start or 0.0),
            reraise=True,
        ):
            with attempt:
                DEADLINE.set(time.monotonic() + left_s(attempt.retry_state.seconds_since_start or 0.0))
                return list(await ask(items))
    except Unavailable as error:
        return [error] * len(items)
    except Unjudgeable as error:
        if len(items) == 1:
            return [error]
        halves = items[: len(items) // 2], items[len(items) // 2 :]
        return [answer for half in halves for answer in await ask_with_patience(ask, half, left_s)]
    finally:
        DEADLINE.reset(token)
    raise AssertionError("unreachable")
