"""KEDA's and the autoscaler's arithmetic, on the examples of their documentation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.benchmarks.keda import (
    Autoscaler,
    Change,
    KafkaTrigger,
    Metric,
    Partition,
    Policy,
    Rules,
    flaps,
)


def partitions(*offsets: int) -> dict[Partition, int]:
    return {("chat", number): offset for number, offset in enumerate(offsets)}


EARLIEST = KafkaTrigger(offset_reset_policy="earliest")


def test_a_lag_between_two_multiples_of_the_threshold_asks_for_one_worker_more_than_partitions() -> None:
    """125 / 10 with 12 partitions: the integer division hides the rest, and the autoscaler rounds up."""
    lag = EARLIEST.lag(partitions(*[0] * 12), partitions(*[10] * 11, 15))
    assert lag == 125
    assert Metric(lag, 10).wish(1, 0.1) == 13
    lag = EARLIEST.lag(partitions(*[0] * 12), partitions(*[20] * 12))
    assert lag == 120
    assert Metric(lag, 10).wish(1, 0.1) == 12


def test_idle_consumers_lift_the_bound_by_the_partitions() -> None:
    trigger = KafkaTrigger(allow_idle_consumers=True)
    assert trigger.lag(partitions(0, 0), partitions(500, 500)) == 1000
    assert EARLIEST.lag(partitions(0, 0), partitions(500, 500)) == 20


def test_only_partitions_with_lag_bound_the_workers_if_that_is_asked_for() -> None:
    trigger = KafkaTrigger(limit_to_partitions_with_lag=True)
    assert trigger.lag(partitions(0, 5, 5), partitions(500, 5, 5)) == 10


@pytest.mark.parametrize(("lag", "workers"), [(5, 1), (11, 2), (25, 3), (35, 4), (45, 6), (500, 12)])
def test_an_even_distribution_asks_for_a_divisor_of_the_partitions(lag: int, workers: int) -> None:
    trigger = KafkaTrigger(ensure_even_distribution=True)
    assert trigger.lag(partitions(*[0] * 12), partitions(lag, *[0] * 11)) == 10 * workers


def test_a_group_that_never_committed_has_no_lag() -> None:
    assert EARLIEST.lag(partitions(-1, -1), partitions(70, 70)) == 0


@pytest.mark.parametrize(
    ("trigger", "lag"),
    [
        (KafkaTrigger(lag_threshold=1000), 1),
        (KafkaTrigger(lag_threshold=1000, offset_reset_policy="earliest"), 70),
        (KafkaTrigger(lag_threshold=1000, scale_to_zero_on_invalid_offset=True), 0),
    ],
)
def test_a_partition_without_a_commit_counts_by_the_reset_policy(trigger: KafkaTrigger, lag: int) -> None:
    assert trigger.lag(partitions(-1, 5), partitions(70, 5)) == lag


def test_a_partition_whose_offset_did_not_move_is_left_out_if_that_is_asked_for_but_keeps_the_trigger_active() -> None:
    trigger = KafkaTrigger(lag_threshold=1000, exclude_persistent_lag=True)
    committed, ends = partitions(5, 5), partitions(70, 9)
    assert trigger.lag(committed, ends, before=partitions(5, 3)) == 4
    assert trigger.is_active(committed, ends)
    assert not trigger.is_active(committed, committed)


def test_a_ratio_within_the_tolerance_changes_nothing() -> None:
    assert Metric(109, 50).wish(2, 0.1) == 2
    assert Metric(111, 50).wish(2, 0.1) == 3
    assert Metric(91, 50).wish(2, 0.1) == 2
    assert Metric(50, 50).wish(2, 0.1) == 1


def test_a_value_is_compared_as_a_whole_and_multiplies_the_workers() -> None:
    """The example of the documentation: 200m against 100m doubles, 50m halves."""
    assert Metric(200, 100, "Value").wish(3, 0.1) == 6
    assert Metric(50, 100, "Value").wish(4, 0.1) == 2


def test_by_default_the_workers_double_or_grow_by_4_in_15_seconds() -> None:
    scaler = Autoscaler(1, 100)
    workers, seen = 1, []
    for sync in range(5):
        workers = scaler.decide(sync * 15.0, workers, [Metric(1000, 10)])
        seen.append(workers)
    assert seen == [5, 10, 20, 40, 80]


def test_the_highest_wish_of_the_last_300_seconds_holds_a_scale_down() -> None:
    scaler = Autoscaler(1, 10)
    assert scaler.decide(0, 4, [Metric(40, 10)]) == 4
    assert scaler.decide(299, 4, [Metric(10, 10)]) == 4
    assert scaler.decide(301, 4, [Metric(10, 10)]) == 1


def test_the_lowest_wish_of_its_window_holds_a_scale_up() -> None:
    scaler = Autoscaler(1, 10, up=Rules(60, (Policy("Pods", 10, 15),)))
    assert scaler.decide(0, 1, [Metric(10, 10)]) == 1
    assert scaler.decide(30, 1, [Metric(90, 10)]) == 1
    assert scaler.decide(61, 1, [Metric(90, 10)]) == 9


def test_a_policy_of_one_worker_in_60_seconds_removes_them_one_by_one() -> None:
    scaler = Autoscaler(1, 10, down=Rules(0, (Policy("Pods", 1, 60),)))
    workers, seen = 4, []
    for sync in range(9):
        workers = scaler.decide(sync * 30.0, workers, [Metric(0, 10)])
        seen.append(workers)
    assert seen == [3, 3, 2, 2, 1, 1, 1, 1, 1]


def test_the_metric_that_asks_for_most_decides() -> None:
    assert Autoscaler(1, 10).decide(0, 2, [Metric(10, 10), Metric(50, 10)]) == 5


def test_a_scale_up_after_a_scale_down_is_a_flap_unless_the_load_rose_in_between() -> None:
    up, down, again = Change(10, 1, 3), Change(60, 3, 2), Change(90, 2, 3)
    assert flaps([up, down], [5]) == 0
    assert flaps([up, down, again], [5]) == 1
    assert flaps([up, down, again], [5, 80]) == 0


PER_WORKER_S = 100.0
SECONDS_IN_FLIGHT = 0.13
LOAD_PER_S = 230.0
"""A worker judges 100 records/s, and a record waits 0.13 s for its commit."""


class Group(NamedTuple):
    """A simulated group at one moment."""

    backlog: float
    done_per_s: float

    @property
    def age_s(self) -> float:
        """How long the oldest record has waited."""
        return self.backlog / self.done_per_s + SECONDS_IN_FLIGHT


def simulated(metrics: Callable[[Group], list[Metric]], *, up_after_s: float) -> list[Change]:
    """Two hours of a load that needs three workers and stays the same: real times, no noise."""
    growth = (Policy("Pods", 2, 30), Policy("Percent", 100, 30))
    scaler = Autoscaler(1, 6, Rules(up_after_s, growth), Rules(300, (Policy("Pods", 1, 60),)))
    workers, backlog, changes = 3, 0.0, []
    for second in range(7_200):
        backlog = max(0.0, backlog + LOAD_PER_S - workers * PER_WORKER_S)
        if second % 15 == 0:
            group = Group(backlog, min(LOAD_PER_S, workers * PER_WORKER_S))
            wanted = scaler.decide(second, workers, metrics(group))
            if wanted != workers:
                changes.append(Change(second, workers, wanted))
            workers = wanted
    return changes


def by_lag(threshold: int) -> Callable[[Group], list[Metric]]:
    trigger = KafkaTrigger(lag_threshold=threshold, offset_reset_policy="earliest")

    def metrics(group: Group) -> list[Metric]:
        records = math.ceil(group.backlog + group.done_per_s * SECONDS_IN_FLIGHT)
        return [Metric(trigger.lag(partitions(*[0] * 6), partitions(records, *[0] * 5)), threshold)]

    return metrics


def by_deadline(group: Group) -> list[Metric]:
    return [Metric(100 * group.age_s / 10, 50, "Value")]


def by_deadline_and_rate(group: Group) -> list[Metric]:
    return [*by_deadline(group), Metric(group.done_per_s, 0.8 * PER_WORKER_S)]


def test_a_threshold_of_what_a_worker_has_in_flight_keeps_the_workers_and_one_of_ten_seconds_of_work_flaps() -> None:
    assert flaps(simulated(by_lag(12), up_after_s=60), []) == 0
    assert flaps(simulated(by_lag(1000), up_after_s=60), []) > 5


def test_the_deadline_alone_flaps_and_together_with_the_rate_it_keeps_the_workers() -> None:
    assert flaps(simulated(by_deadline, up_after_s=0), []) > 5
    assert simulated(by_deadline_and_rate, up_after_s=0) == []
