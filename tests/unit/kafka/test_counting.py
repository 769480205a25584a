"""What is counted at the commit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.shown import shown
from workers import telemetry
from workers.core.ledger import Ledger
from workers.core.records import Finished, Source, TopicPartition
from workers.kafka.counting import count_committed

A = TopicPartition("t", 0)
NOW = 1_764_000_000.0

Finish = Callable[[Source], Finished]


def committed(*finish: Finish, received_s_ago: float = 0) -> None:
    """Register a record for each function, finish it by that function, and count the commit."""
    ledger = Ledger()
    ledger.assign([A])
    for offset, one in enumerate(finish):
        source = ledger.register(A, offset, None, int((NOW - received_s_ago) * 1000))
        assert source is not None
        ledger.complete([one(source)], now=0)
    count_committed(list(ledger.take().records()), NOW)


def test_what_a_record_counts_rises_at_its_commit() -> None:
    allow, block = telemetry.DECISIONS.labels("allow"), telemetry.DECISIONS.labels("block")
    names = {
        "allow": ("guardline_decisions_total", {"decision": "allow"}),
        "block": ("guardline_decisions_total", {"decision": "block"}),
        "duplicates": ("guardline_duplicates_total", {}),
        "records": ("guardline_records_committed_total", {}),
    }
    before = {name: shown(metric, **labels) for name, (metric, labels) in names.items()}
    committed(
        lambda source: Finished(source, (), counted=(allow, telemetry.DUPLICATES)),
        lambda source: Finished(source, (), counted=(allow, block)),  # Two events of one record.
        lambda source: Finished(source, ()),
    )
    after = {name: shown(metric, **labels) - before[name] for name, (metric, labels) in names.items()}
    assert after == {"allow": 2, "block": 1, "duplicates": 1, "records": 3}


@pytest.mark.parametrize(
    ("created_at", "seconds"),
    [
        ((), None),
        (("2025-11-24T15:59:57Z",), 3),
        (("2025-11-24t16:59:58.500000000+01:00",), 1.5),
        (("2025-11-24T16:00:09Z",), 0),  # In the future, by the clock of this host.
        (("2025-11-24T15:59:60Z",), None),  # A leap second.
    ],
)
def test_the_latency_from_the_time_of_the_event_is_observed(created_at: tuple[str, ...], seconds: float | None) -> None:
    names = ("guardline_event_to_commit_seconds_count", "guardline_event_to_commit_seconds_sum")
    before = [shown(name) for name in names]
    committed(lambda source: Finished(source, (), created_at=created_at))
    count, total = (shown(name) - was for name, was in zip(names, before, strict=True))
    assert (count, total) == ((0, 0) if seconds is None else (1, pytest.approx(seconds)))


def test_of_a_large_commit_the_times_of_some_hundred_records_are_parsed() -> None:
    before = shown("guardline_event_to_commit_seconds_count")
    committed(*[lambda source: Finished(source, (), created_at=("2025-11-24T15:59:57Z",))] * 5_000)
    assert 400 <= shown("guardline_event_to_commit_seconds_count") - before <= 500


def test_the_latency_from_intake_is_observed_for_each_record() -> None:
    names = [f"guardline_intake_to_commit_seconds_{part}" for part in ("count", "sum")]
    before = [shown(name) for name in names]
    committed(*[lambda source: Finished(source, ())] * 3, received_s_ago=2)
    assert [shown(name) - was for name, was in zip(names, before, strict=True)] == pytest.approx([3, 6])
