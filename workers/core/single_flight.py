"""Single flight: equal content in flight is judged once, for all events that wait for it. Pure: time is passed in.

This module does not know how content is judged, nor how waiters get the answer: each work carries its `flight`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct

from schemas.event import EventDict
from workers.core.records import Source

Flight = TypeVar("Flight")
"""The call or calls to the guard to which a work belongs; opaque here."""


class Work(Struct, Generic[Flight], eq=False):
    """One content to judge, and the positions that wait for it. All of them have the same retry timeout."""

    key: bytes
    body: EventDict
    retry_s: float
    flight: Flight
    waiters: list[Source]
    joined_at: float
    """When the last waiter joined."""
    deadline: float = math.inf
    """The end of the retries, set at the first attempt. The wait for the first attempt does not count."""
    has_failed: bool = False
    is_settled: bool = False
    assessment: dict[str, Any] | None = None
    """The answer to every waiter, once the work is settled. None: the content could not be judged."""
    engine_ms: float | None = None
    """The engine's time for it, until a waiter is charged with it."""

    def is_spent(self, now: float) -> bool:
        """Say whether a waiter that joins now would have less than half of its timeout before the work fails."""
        return self.has_failed and self.deadline - now < self.retry_s / 2


class SingleFlight(Generic[Flight]):
    """The works in flight.

    Guarantee: at any time there is at most one work that an event can join for each content and timeout, and each
    waiter belongs to exactly one work. A work is retried for at least half of its timeout after the last waiter joined,
    and all its waiters have that timeout. Never blocks.
    """

    def __init__(self, is_current: Callable[[Source], bool]) -> None:
        self._is_current = is_current
        # By timeout too: a waiter with a long timeout must not receive a failure that was reached on a short one.
        self._works: dict[tuple[bytes, float], Work[Flight]] = {}

    def __len__(self) -> int:
        """Count the works that an event can join."""
        return len(self._works)

    def join(
        self, key: bytes, body: EventDict, source: Source, retry_s: float, flight: Flight, now: float
    ) -> Work[Flight]:
        """Join the work on this content. If there is none, create one in `flight`."""
        work = self._works.get((key, retry_s))
        if work is None or work.is_spent(now):
            work = self._works[key, retry_s] = Work(key, body, retry_s, flight, [source], now)
        else:
            work.waiters.append(source)
            work.joined_at = now
        return work

    def begin(self, works: Iterable[Work[Flight]], now: float) -> list[Work[Flight]]:
        """Return the works to judge now, without settled ones. Their timeout begins with the first attempt.

        A work without current waiters is settled without an answer. A later event of the same content starts a new
        work, because that event is current and must get an answer.
        """
        wanted = []
        for work in works:
            if work.is_settled:
                continue
            if not any(map(self._is_current, work.waiters)):
                self.settle(work, None)
                continue
            work.deadline = min(work.deadline, now + work.retry_s)
            wanted.append(work)
        return wanted

    def fail(self, works: Iterable[Work[Flight]], now: float) -> None:
        """Note a failed attempt. A waiter that joined shortly before it still has half of its timeout."""
        for work in works:
            work.has_failed = True
            work.deadline = max(work.deadline, work.joined_at + work.retry_s / 2)

    def settle(self, work: Work[Flight], assessment: dict[str, Any] | None, engine_ms: float | None = None) -> None:
        """Answer all waiters of a work, once. No event can join it afterwards."""
        assert not work.is_settled
        work.is_settled, work.assessment, work.engine_ms = True, assessment, engine_ms
        if self._works.get((work.key, work.retry_s)) is work:
            del self._works[work.key, work.retry_s]


def deadline_of(works: Sequence[Work[Any]]) -> float:
    """Return the time until which the unsettled works, judged together, may be retried."""
    return max([work.deadline for work in works if not work.is_settled], default=-math.inf)
