"""Single flight: content that is under way is judged once, for all who wait for it. Pure: time is passed in.

It does not know who judges, nor how waiters hear of the answer: a work carries the `flight` that it is part of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct

from schemas.event import EventDict
from workers.core.records import Source

Flight = TypeVar("Flight")
"""The call or calls to the guard that a work belongs to; opaque here."""


class Work(Struct, Generic[Flight], eq=False):
    """One content to be judged, and the positions that wait for it. All of them have the same patience."""

    key: bytes
    body: EventDict
    patience_s: float
    flight: Flight
    waiters: list[Source]
    joined_at: float
    """When the last waiter came."""
    deadline: float = math.inf
    """Until when it may be tried again; known once it was tried: no patience is lost while it waits for its turn."""
    has_failed: bool = False
    is_settled: bool = False
    assessment: dict[str, Any] | None = None
    """The answer to every waiter, once it is settled. None: there is no judgement."""

    def is_spent(self, now: float) -> bool:
        """Say whether who joins now would be given the failure of others, with less than half of the patience."""
        return self.has_failed and self.deadline - now < self.patience_s / 2


class SingleFlight(Generic[Flight]):
    """The works under way.

    Guarantee: at any time there is at most one work for a content and a patience that can be joined, and each waiter
    belongs to exactly one work. A work is tried for at least half of its patience after the last waiter joined, and its
    waiters have no other patience. Never blocks.
    """

    def __init__(self, is_current: Callable[[Source], bool]) -> None:
        self._is_current = is_current
        # By patience as well: who is patient must not be given the failure of who is not.
        self._works: dict[tuple[bytes, float], Work[Flight]] = {}

    def __len__(self) -> int:
        """Count the works that can be joined."""
        return len(self._works)

    def join(
        self, key: bytes, body: EventDict, source: Source, patience_s: float, flight: Flight, now: float
    ) -> Work[Flight]:
        """Wait for the work on this content; where there is none, it becomes a new one of `flight`."""
        work = self._works.get((key, patience_s))
        if work is None or work.is_spent(now):
            work = self._works[key, patience_s] = Work(key, body, patience_s, flight, [source], now)
        else:
            work.waiters.append(source)
            work.joined_at = now
        return work

    def begin(self, works: Iterable[Work[Flight]], now: float) -> list[Work[Flight]]:
        """Give those to be judged now, settled ones left out. Their patience begins with the first attempt.

        Those that nobody waits for any more are given up: who comes from now on begins anew, because it is current and
        must not get an answer that is none.
        """
        wanted = []
        for work in works:
            if work.is_settled:
                continue
            if not any(map(self._is_current, work.waiters)):
                self.settle(work, None)
                continue
            work.deadline = min(work.deadline, now + work.patience_s)
            wanted.append(work)
        return wanted

    def fail(self, works: Iterable[Work[Flight]], now: float) -> None:
        """Note an attempt that failed. Who joined shortly before it still has half of its patience."""
        for work in works:
            work.has_failed = True
            work.deadline = max(work.deadline, work.joined_at + work.patience_s / 2)

    def settle(self, work: Work[Flight], assessment: dict[str, Any] | None) -> None:
        """Answer all waiters of a work, once. Nobody joins it any more."""
        assert not work.is_settled
        work.is_settled, work.assessment = True, assessment
        if self._works.get((work.key, work.patience_s)) is work:
            del self._works[work.key, work.patience_s]


def deadline_of(works: Sequence[Work[Any]]) -> float:
    """Give the time until which those works may be tried again, judged together, that are not settled."""
    return max([work.deadline for work in works if not work.is_settled], default=-math.inf)
