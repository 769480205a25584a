"""Stops calling Redis for a while after a failed call, so that an outage does not cost a timeout for each call."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import structlog
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import InvalidResponse, ResponseError
from redis.exceptions import TimeoutError as NoAnswer

from workers import telemetry
from workers.redis.failures import said_of, what_redis_does

log = structlog.get_logger(__name__)

RETRY_AFTER_S = 1.0
"""How long Redis is not called after a failed call."""


Use = Literal["redis_lookups", "redis_strikes", "redis_writes", "redis_notes"]


class Breaker:
    """A circuit breaker for one use of Redis, because Redis may answer one use and refuse another.

    Guarantee: `ask` raises no error of Redis or of the network, and every error that is a bug. It waits as long as the
    client does, `redis.timeout_s`.
    """

    def __init__(self, use: Use, without: str) -> None:
        self._use = use
        self._without = without
        self._open_until = 0.0
        telemetry.OPEN_CIRCUITS.labels(use).set_function(lambda: not self.is_up)

    @property
    def is_up(self) -> bool:
        """Whether the last call was answered."""
        return self._open_until == 0.0

    async def ask(self, command: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Return the answer, or None: Redis did not answer, or was not called because a call has just failed."""
        if time.monotonic() < self._open_until:
            return None
        try:
            answer = await command(*arguments)
        except (NoConnection, NoAnswer, InvalidResponse, ResponseError, OSError) as error:
            if self.is_up:
                log.warning(f"{what_redis_does(error)}: {self._without}", reason=said_of(error))
            telemetry.FAILED_ATTEMPTS.labels("redis").inc()
            self._open_until = time.monotonic() + RETRY_AFTER_S
            return None
        self._open_until = 0.0
        return answer
