"""What became of each record of a load."""

from __future__ import annotations

import pytest

from workers.load.tally import Outcome, Position, Tally

OUTPUT = ("verdicts", 0)


def at(offset: int) -> Position:
    return Position("chat", 0, offset)


def verdict(offset: int, now: float, *, is_repeat: bool = False, output: tuple[str, int] = OUTPUT) -> Outcome:
    return Outcome(at(offset), output, now, "allow", is_repeat)


def test_a_latency_is_the_time_from_sending_to_the_visible_outcome() -> None:
    tally = Tally(10)
    for offset in range(100):
        tally.accepted(at(offset), 10)
        tally.visible(verdict(offset, 10 + (offset + 1) / 100))
    assert tally.summary(12)["latency_ms"] == {
        "p50": pytest.approx(505, abs=1),
        "p95": pytest.approx(950, abs=2),
        "p99": pytest.approx(990, abs=2),
        "max": 1000.0,
    }


def test_a_record_without_an_outcome_is_missing_and_a_second_outcome_is_doubled() -> None:
    tally = Tally(0)
    for offset in range(3):
        tally.accepted(at(offset), 0)
    tally.visible(verdict(0, 1))
    tally.visible(verdict(1, 1))
    tally.visible(verdict(1, 2))
    found = tally.summary(3)
    assert (found["sent"], found["answered"], found["missing"], found["doubled"]) == (3, 2, 1, 1)


def test_an_outcome_before_the_brokers_report_is_counted_once() -> None:
    tally = Tally(0)
    tally.visible(verdict(5, 0.3))
    assert tally.answered == 1
    tally.accepted(at(5), 0.1)
    assert tally.waiting == 0
    assert tally.summary(1)["latency_ms"]["max"] == 200
    tally.visible(verdict(5, 0.4))
    assert tally.doubled == 1


def test_an_outcome_behind_a_later_one_of_its_partition_is_out_of_order() -> None:
    tally = Tally(0)
    for offset in range(4):
        tally.accepted(at(offset), 0)
    tally.visible(verdict(1, 1))
    # Another key may be in another partition of the topic, and a dead letter is in another topic.
    tally.visible(verdict(0, 1, output=("verdicts", 1)))
    assert tally.disorder == 0
    tally.visible(verdict(3, 1))
    tally.visible(verdict(2, 1))
    assert tally.disorder == 1


def test_verdicts_dead_letters_decisions_and_repeats_are_counted() -> None:
    tally = Tally(0)
    for offset in range(3):
        tally.accepted(at(offset), 0)
    tally.visible(verdict(0, 1))
    tally.visible(verdict(1, 1, is_repeat=True))
    tally.visible(Outcome(at(2), ("dead-letters", 0), 1, None, False))
    found = tally.summary(2)
    assert (found["verdicts"], found["dead_letters"], found["duplicates"]) == (2, 1, 1)
    assert found["decisions"] == {"allow": 2}


def test_a_silence_counts_only_while_a_record_waits() -> None:
    tally = Tally(0)
    tally.accepted(at(0), 100)
    tally.visible(verdict(0, 101))
    assert tally.summary(500)["longest_silence_s"] == 1
    tally.accepted(at(1), 600)
    assert tally.summary(603)["longest_silence_s"] == 3
    tally.visible(verdict(1, 605))
    assert tally.summary(700)["longest_silence_s"] == 5


def test_a_second_reports_only_what_happened_since_the_last_one() -> None:
    tally = Tally(0)
    tally.accepted(at(0), 0)
    tally.accepted(at(1), 0)
    tally.visible(verdict(0, 1))
    first = tally.second(2)
    assert (first.sent_per_s, first.answered_per_s, first.waiting) == (1, 0.5, 1)
    assert first.latency_ms is not None
    assert tally.second(3).latency_ms is None
    tally.visible(verdict(1, 4))
    last = tally.second(4)
    assert (last.at_s, last.sent, last.answered, last.answered_per_s) == (4, 2, 2, 1)
    assert last.latency_ms is not None
    assert last.latency_ms["max"] == 4000
