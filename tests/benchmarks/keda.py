"""What KEDA's Kafka scaler and the Horizontal Pod Autoscaler compute, as their documentation and source describe it.

KEDA 2.20, pkg/scalers/kafka_scaler.go. Kubernetes documentation, "Horizontal Pod Autoscaling": "Algorithm details" and
"Configurable scaling behavior". Pure: the caller gives the time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Partition = tuple[str, int]

NO_OFFSET = -1
"""What brokers answer for a partition in which a group has committed nothing."""


@dataclass(frozen=True)
class KafkaTrigger:
    """The metadata of a trigger of the type `kafka`, without `topic`: all topics with a committed offset count."""

    lag_threshold: int = 10
    offset_reset_policy: Literal["earliest", "latest"] = "latest"
    activation_lag_threshold: int = 0
    scale_to_zero_on_invalid_offset: bool = False
    exclude_persistent_lag: bool = False
    allow_idle_consumers: bool = False
    limit_to_partitions_with_lag: bool = False
    ensure_even_distribution: bool = False

    def lag(
        self, committed: Mapping[Partition, int], ends: Mapping[Partition, int], before: Mapping[Partition, int] = {}
    ) -> int:
        """Return the lag that the scaler reports to the autoscaler. `before`: what was committed at the last poll."""
        if not any(offset != NO_OFFSET for offset in committed.values()):
            return 0  # Without a topic in the trigger, KEDA then knows no topic of the group.
        lags = {one: self._lag_of(one, offset, ends, before) for one, offset in committed.items()}
        total = sum(lags.values())
        if self.allow_idle_consumers and not (self.limit_to_partitions_with_lag or self.ensure_even_distribution):
            return total
        bound = sum(lag > 0 for lag in lags.values()) if self.limit_to_partitions_with_lag else len(lags)
        if self.ensure_even_distribution:
            even = (number for number in range(1, bound + 1) if bound % number == 0)
            return self.lag_threshold * next((one for one in even if one * self.lag_threshold >= total), bound)
        return bound * self.lag_threshold if total // self.lag_threshold > bound else total

    def is_active(self, committed: Mapping[Partition, int], ends: Mapping[Partition, int]) -> bool:
        """Whether KEDA scales from 0 to 1: persistent lag counts here."""
        whole = sum(self._lag_of(one, offset, ends, {}) for one, offset in committed.items())
        return whole > self.activation_lag_threshold

    def _lag_of(
        self, one: Partition, offset: int, ends: Mapping[Partition, int], before: Mapping[Partition, int]
    ) -> int:
        if offset == NO_OFFSET:
            if self.scale_to_zero_on_invalid_offset:
                return 0
            return 1 if self.offset_reset_policy == "latest" else ends.get(one, 0)
        if one not in ends or (self.exclude_persistent_lag and before.get(one) == offset):
            return 0
        return ends[one] - offset


class Metric(NamedTuple):
    """An external metric. `AverageValue`: `target` is for each worker. `Value`: `target` is for the whole."""

    value: float
    target: float
    kind: Literal["AverageValue", "Value"] = "AverageValue"

    def wish(self, current: int, tolerance: float) -> int:
        """Return the number of workers that this metric asks for."""
        ratio = self.value / self.target / (current if self.kind == "AverageValue" else 1)
        return current if abs(ratio - 1) <= tolerance else math.ceil(ratio * current - 1e-9)


class Policy(NamedTuple):
    """How many workers, or how many per cent of them, may be added or removed within a time."""

    kind: Literal["Pods", "Percent"]
    value: int
    period_s: float


@dataclass(frozen=True)
class Rules:
    """One direction of the autoscaler's `behavior`. Of its policies, the one that allows the most counts (`Max`)."""

    stabilization_s: float
    policies: Sequence[Policy]


UP = Rules(0, (Policy("Pods", 4, 15), Policy("Percent", 100, 15)))
DOWN = Rules(300, (Policy("Percent", 100, 15),))
"""The defaults of Kubernetes."""

TOLERANCE = 0.1


@dataclass
class Autoscaler:
    """The Horizontal Pod Autoscaler. It remembers its wishes and changes; `decide` is one synchronisation."""

    minimum: int
    maximum: int
    up: Rules = UP
    down: Rules = DOWN
    tolerance: float = TOLERANCE
    _wishes: list[tuple[float, int]] = field(default_factory=list)
    _changes: list[tuple[float, int]] = field(default_factory=list)

    def decide(self, now: float, current: int, metrics: Sequence[Metric]) -> int:
        """Return the number of workers to run. Several metrics: the one that asks for most decides."""
        wish = max(one.wish(current, self.tolerance) for one in metrics)
        self._wishes.append((now, wish))
        wanted = self._limited(now, current, self._stable(now, current))
        if wanted != current:
            self._changes.append((now, wanted - current))
        return wanted

    def _stable(self, now: float, current: int) -> int:
        """Scale up to the lowest wish of its window, and down to the highest wish of its window."""
        longest_s = max(self.up.stabilization_s, self.down.stabilization_s)
        self._wishes = [(at, wish) for at, wish in self._wishes if at >= now - longest_s]
        lowest = min(wish for at, wish in self._wishes if at >= now - self.up.stabilization_s)
        highest = max(wish for at, wish in self._wishes if at >= now - self.down.stabilization_s)
        return min(max(current, lowest), highest)

    def _limited(self, now: float, current: int, wanted: int) -> int:
        if wanted > current:
            most = max(
                start + one.value if one.kind == "Pods" else math.ceil(start * (1 + one.value / 100))
                for one in self.up.policies
                for start in [current - self._changed(now, one.period_s)]
            )
            return max(current, min(wanted, most, self.maximum))
        if wanted < current:
            least = min(
                start - one.value if one.kind == "Pods" else int(start * (1 - one.value / 100))
                for one in self.down.policies
                for start in [current - self._changed(now, one.period_s)]
            )
            return min(current, max(wanted, least, self.minimum))
        return current

    def _changed(self, now: float, period_s: float) -> int:
        """Return by how many workers the number grew in the period."""
        return sum(change for at, change in self._changes if at > now - period_s)


class Change(NamedTuple):
    """The autoscaler changed the number of workers."""

    at_s: float
    before: int
    after: int


def flaps(changes: Sequence[Change], rises_s: Sequence[float]) -> int:
    """Count the scale-ups that take back a scale-down, although the load has not risen since that scale-down."""
    count, down_s = 0, math.inf
    for change in changes:
        if change.after < change.before:
            down_s = change.at_s
        elif not any(down_s <= rise_s <= change.at_s for rise_s in rises_s) and down_s < change.at_s:
            count += 1
    return count
