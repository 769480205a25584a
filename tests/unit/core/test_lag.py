"""The lag of a worker, from its ledger and the ends of its partitions."""

from __future__ import annotations

import pytest

from workers.core.lag import End, Lag
from workers.core.ledger import Ledger
from workers.core.records import Finished, TopicPartition

A, B = TopicPartition("t", 0), TopicPartition("t", 1)
NOW = 1_000.0


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.assign([A, B])
    return ledger


def read(ledger: Ledger, origin: TopicPartition, offset: int, *, written_at: float | None, read_at: float) -> Finished:
    timestamp_ms = None if written_at is None else int(written_at * 1000)
    source = ledger.register(origin, offset, timestamp_ms, int(read_at * 1000))
    assert source is not None
    return Finished(source, ())


def commit(ledger: Ledger, *finished: Finished) -> None:
    ledger.complete(finished, now=0)
    ledger.settle(ledger.take(), now=0)


def test_without_partitions_and_without_reports_there_is_no_lag(ledger: Ledger) -> None:
    for one in (Ledger(), ledger):
        lag = Lag(one)
        lag.look(NOW)
        assert (lag.records, lag.oldest_s, lag.oldest_received_s) == (0, None, None)


def test_the_lag_counts_what_is_unread_in_flight_and_finished(ledger: Ledger) -> None:
    lag = Lag(ledger)
    first = read(ledger, A, 10, written_at=900, read_at=990)
    second = read(ledger, A, 11, written_at=901, read_at=991)
    read(ledger, A, 12, written_at=902, read_at=992)
    lag.report({A: End(0, 20, 13), B: End(0, 5, 5)})
    lag.look(NOW)
    assert (lag.records, lag.oldest_s, lag.oldest_received_s) == (10, 900, 990)
    ledger.complete([second], now=0)
    lag.look(NOW)
    assert (lag.records, lag.oldest_s) == (10, 900)
    commit(ledger, first)
    lag.look(NOW)
    assert (lag.records, lag.oldest_s, lag.oldest_received_s) == (8, 902, 992)


def test_what_was_read_after_the_last_report_counts_too(ledger: Ledger) -> None:
    lag = Lag(ledger)
    lag.report({A: End(0, 11, 11)})
    finished = [read(ledger, A, offset, written_at=950, read_at=999) for offset in range(11, 14)]
    lag.look(NOW)
    assert lag.records == 3
    commit(ledger, *finished)
    lag.look(NOW)
    assert (lag.records, lag.oldest_s, lag.oldest_received_s) == (0, None, None)


def test_the_oldest_record_of_all_partitions_counts(ledger: Ledger) -> None:
    lag = Lag(ledger)
    read(ledger, A, 0, written_at=None, read_at=980)  # Without a timestamp, the time of the poll.
    read(ledger, B, 0, written_at=970, read_at=985)
    lag.look(NOW)
    assert (lag.oldest_s, lag.oldest_received_s) == (970, 980)
    ledger.revoke([B])
    lag.look(NOW)
    assert (lag.records, lag.oldest_s, lag.oldest_received_s) == (1, 980, 980)


def test_an_unread_partition_is_as_old_as_the_first_look_that_found_it(ledger: Ledger) -> None:
    lag = Lag(ledger)
    lag.report({A: End(0, 8, 3)})
    lag.look(NOW)
    lag.look(NOW + 7)
    assert (lag.records, lag.oldest_s, lag.oldest_received_s) == (5, NOW, None)
    finished = [read(ledger, A, offset, written_at=500, read_at=NOW + 8) for offset in range(3, 8)]
    lag.look(NOW + 8)
    assert lag.oldest_s == 500
    commit(ledger, *finished)
    lag.look(NOW + 9)
    lag.report({A: End(0, 9, 8)})
    lag.look(NOW + 10)
    assert (lag.records, lag.oldest_s) == (1, NOW + 10)


def test_a_broker_knows_the_end_of_a_partition_that_is_not_fetched(ledger: Ledger) -> None:
    lag = Lag(ledger)
    lag.report({A: End(0, 8, 8)})
    lag.learn({A: 500})
    lag.look(NOW)
    assert lag.records == 492
    lag.report({A: End(0, 600, 8)})
    lag.look(NOW)
    assert lag.records == 592


def test_records_that_were_deleted_unread_are_no_lag(ledger: Ledger) -> None:
    lag = Lag(ledger)
    commit(ledger, read(ledger, A, 10, written_at=900, read_at=990))
    lag.report({A: End(90, 100, 11)})
    lag.look(NOW)
    assert lag.records == 10


def test_an_unread_partition_without_a_report_is_behind_from_its_start_to_the_end_that_a_broker_gave(
    ledger: Ledger,
) -> None:
    lag = Lag(ledger)
    lag.start_at({A: 40})
    lag.look(NOW)
    assert (lag.records, lag.oldest_s) == (0, None)
    lag.learn({A: 500, B: 500})  # Nobody knows where B begins.
    lag.look(NOW)
    lag.look(NOW + 7)
    assert (lag.records, lag.oldest_s, lag.oldest_received_s) == (460, NOW, None)
    lag.report({A: End(0, 500, 42)})
    lag.look(NOW + 8)
    assert lag.records == 458


def test_the_end_that_a_broker_gave_is_forgotten(ledger: Ledger) -> None:
    lag = Lag(ledger)
    lag.report({A: End(0, 8, 8)})
    lag.learn({A: 500})
    lag.learn({})
    lag.look(NOW)
    assert lag.records == 0
