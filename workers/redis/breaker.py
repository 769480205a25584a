"""Leaves Redis alone for a while after a call that failed, so that an outage does not cost a time-out for each call."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import InvalidResponse, ResponseError
from redis.exceptions import TimeoutError as NoAnswer

log = structlog.get_logger(__name__)

RETRY_AFTER_S = 1.0
"""How long Redis is left alone after a failed call."""


class Breaker:
    """One use of Redis: look-ups, writes, or notes. Each has its own, because a Redis may do the one and not the other.

    Guarantee: `ask` raises nothing that Redis or the way to it is to blame for, and what a bug here is to blame for. It
    waits for as long as the client does, `redis.timeout_s`.
    """

    def __init__(self, without: str) -> None:
        self._without = without
        self._open_until = 0.0

    @property
    def is_up(self) -> bool:
        """Whether the last call was answered."""
        return self._open_until == 0.0

    async def ask(self, command: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Give the answer, or None: there is none, or nothing was asked because a call failed a moment ago."""
        if time.monotonic() < self._open_until:
            return None
        try:
            answer = await command(*arguments)
        except (NoConnection, NoAnswer, InvalidResponse, ResponseError, OSError) as error:
            if self.is_up:
                what = "refuses a command" if isinstance(error, ResponseError) else "does not answer"
                log.warning(f"redis {what}: {self._without}", error=str(error))
            self._open_until = time.monotonic() + RETRY_AFTER_S
            return None
        self._open_until = 0.0
        return answer
