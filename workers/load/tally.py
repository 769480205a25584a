"""Counts what became of each record of a load: answered, missing, doubled, out of order, and how long it took.

It remembers only the records without an outcome, and 8 bytes for each latency. Pure: no clock.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

SHARES = (50, 95, 99)
"""The percentiles that are reported."""


class Position(NamedTuple):
    """Where a record is."""

    topic: str
    partition: int
    offset: int


class Outcome(NamedTuple):
    """A verdict or dead letter of the record `at` a position: its own topic and partition, and when it was visible.

    `decision` is None for a dead letter. `is_repeat`: the verdict names an earlier one of the same event.
    """

    at: Position
    output: tuple[str, int]
    visible: float
    decision: str | None
    is_repeat: bool


@dataclass(frozen=True)
class Second:
    """One second of a load. Latencies are those of the outcomes that became visible in it; None without any.

    The rates are those of this second; all other counts are those since the start.
    """

    at_s: float
    sent: int
    answered: int
    waiting: int
    sent_per_s: float
    answered_per_s: float
    latency_ms: dict[str, float] | None
    doubled: int
    disorder: int


class Tally:
    """The counts of one load. Times are values of one monotonic clock, in seconds. For one thread."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._waiting: dict[Position, float] = {}
        self._early: dict[Position, float] = {}
        self._accepted: dict[tuple[str, int], int] = {}
        self._order: dict[tuple[str, int, str, int], int] = {}
        self._latencies = array("d")
        self._decisions: Counter[str] = Counter()
        self._visible_at = began
        self._longest_silence_s = 0.0
        self._last = (began, 0, 0, 0)
        self.sent = self.verdicts = self.dead_letters = self.duplicates = self.doubled = self.disorder = 0

    def accepted(self, at: Position, sent: float) -> None:
        """Count a record that was sent at that time and that a broker has taken."""
        self.sent += 1
        origin = (at.topic, at.partition)
        self._accepted[origin] = max(at.offset, self._accepted.get(origin, -1))
        if not self._waiting:
            self._visible_at = max(self._visible_at, sent)
        visible = self._early.pop(at, None)
        if visible is None:
            self._waiting[at] = sent
        else:
            self._latencies.append(visible - sent)

    def visible(self, outcome: Outcome) -> None:
        """Count an outcome of a record of this load."""
        at, now = outcome.at, outcome.visible
        self._longest_silence_s = max(self._longest_silence_s, self._silent_s(now))
        self._visible_at = max(self._visible_at, now)
        if (sent := self._waiting.pop(at, None)) is not None:
            self._latencies.append(now - sent)
        elif at.offset > self._accepted.get((at.topic, at.partition), -1) and at not in self._early:
            # The outcome came before the report that a broker has the record.
            self._early[at] = now
        else:
            self.doubled += 1
            return
        origin = (*outcome.output, at.topic, at.partition)
        last = self._order.get(origin, -1)
        self.disorder += at.offset < last
        self._order[origin] = max(at.offset, last)
        self.duplicates += outcome.is_repeat
        if outcome.decision is None:
            self.dead_letters += 1
        else:
            self.verdicts += 1
            self._decisions[outcome.decision] += 1

    @property
    def waiting(self) -> int:
        """The number of records without an outcome."""
        return len(self._waiting)

    @property
    def answered(self) -> int:
        """The number of records with an outcome."""
        return self.verdicts + self.dead_letters

    @property
    def reported(self) -> float:
        """The time of the last `second`."""
        return self._last[0]

    def second(self, now: float) -> Second:
        """Return what happened since the last call."""
        before, sent, answered, seen = self._last
        self._last = (now, self.sent, self.answered, len(self._latencies))
        seconds = max(now - before, 1e-9)
        return Second(
            at_s=round(now - self._began, 1),
            sent=self.sent,
            answered=self.answered,
            waiting=self.waiting,
            sent_per_s=round((self.sent - sent) / seconds, 1),
            answered_per_s=round((self.answered - answered) / seconds, 1),
            latency_ms=percentiles(self._latencies[seen:]),
            doubled=self.doubled,
            disorder=self.disorder,
        )

    def summary(self, now: float) -> dict[str, Any]:
        """Return everything since the start. `missing` counts the records without an outcome."""
        seconds = max(now - self._began, 1e-9)
        return {
            "sent": self.sent,
            "answered": self.answered,
            "missing": self.waiting,
            "doubled": self.doubled,
            "disorder": self.disorder,
            "verdicts": self.verdicts,
            "dead_letters": self.dead_letters,
            "duplicates": self.duplicates,
            "decisions": dict(sorted(self._decisions.items())),
            "seconds": round(seconds, 1),
            "answered_per_s": round(self.answered / seconds, 1),
            "longest_silence_s": round(max(self._longest_silence_s, self._silent_s(now)), 2),
            "latency_ms": percentiles(self._latencies),
        }

    def _silent_s(self, now: float) -> float:
        return now - self._visible_at if self._waiting else 0.0


def percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return the percentiles and the maximum of latencies, in milliseconds; None if there are none."""
    if not seconds:
        return None
    values = np.percentile(seconds, [*SHARES, 100])
    return {
        name: round(1_000 * float(value), 1)
        for name, value in zip([*(f"p{n}" for n in SHARES), "max"], values, strict=True)
    }
