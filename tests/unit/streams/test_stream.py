"""What a record means for its stream: docs/streams.md#outcomes, line by line."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from tests.unit.streams.given import item
from workers.streams.reading import Item
from workers.streams.stream import REMEMBERED, Act, Limits, Meaning, Stream, without_stream

LIMITS = Limits(idle_ms=60_000, age_ms=600_000)
JUDGED = Meaning(Act.JUDGE, "judged")
GAP = Meaning(Act.GIVE_UP, "out_of_order")
REPEATED = Meaning(Act.ANSWER, "repeated")


def begun(*, first_seq: int = 0, at_s: float | None = 0) -> Stream:
    opening = item("open", first_seq, at_s=at_s)
    stream = Stream(opening.source)
    stream.begin(opening)
    return stream


def meanings(stream: Stream, *items: Item) -> list[Meaning]:
    return [stream.meaning(one, LIMITS) for one in items]


def test_records_in_order_are_judged_until_the_close() -> None:
    found = meanings(begun(), item("user", 1, "hi"), item("delta", 2, "a"), item("delta", 3, [1, 2]), item("close", 4))
    assert found == [JUDGED, JUDGED, JUDGED, Meaning(Act.FINISH, "closed", ends=True)]


def test_the_first_seq_is_that_of_open() -> None:
    assert meanings(begun(first_seq=7), item("user", 8, "hi")) == [JUDGED]


@pytest.mark.parametrize("kind", ["user", "delta", "close"])
def test_a_record_without_a_stream_is_answered_and_not_judged(kind: str) -> None:
    content = None if kind == "close" else "a"
    assert without_stream(item(kind, 5, content)) == Meaning(Act.ANSWER, "unknown_stream")


def test_open_begins_a_stream_that_is_not_known() -> None:
    assert without_stream(item("open", 0)) == Meaning(Act.BEGIN, "opened")


def test_a_record_that_was_sent_twice_is_not_judged_again() -> None:
    """A retry of the producer: the same `seq`, the same content."""
    stream = begun()
    one, two = item("user", 1, "hi"), item("delta", 2, "a")
    assert meanings(stream, one, two, two, one, item("open", 0), item("delta", 3, "b")) == [
        JUDGED,
        JUDGED,
        REPEATED,
        REPEATED,
        REPEATED,
        JUDGED,
    ]


@pytest.mark.parametrize(
    "other",
    [item("delta", 2, "b"), item("user", 2, "a"), item("delta", 2, [1]), item("close", 2), item("user", 0, "a")],
)
def test_another_content_with_a_seq_that_was_there_means_two_senders(other: Item) -> None:
    """Two streams with one id: nobody can say which text belongs to which answer."""
    stream = begun()
    meanings(stream, item("user", 1, "hi"), item("delta", 2, "a"))
    assert stream.meaning(other, LIMITS) == GAP._replace(ends=other.kind == "close")


def test_a_second_stream_with_the_same_id_is_found_by_its_first_own_text() -> None:
    stream = begun()
    found = meanings(stream, item("user", 1, "hi"), item("open", 0), item("user", 1, "who are you"))
    assert found == [JUDGED, REPEATED, GAP]


def test_a_repeat_that_is_too_old_to_compare_counts_as_another_sender() -> None:
    stream = begun()
    meanings(stream, *(item("delta", seq, "x") for seq in range(1, REMEMBERED + 2)))
    assert stream.meaning(item("delta", 2, "x"), LIMITS) == REPEATED
    assert stream.meaning(item("delta", 1, "x"), LIMITS) == GAP


@pytest.mark.parametrize(("kind", "content"), [("delta", "b"), ("user", "b"), ("close", None), ("open", None)])
def test_a_seq_that_jumps_means_that_a_part_was_not_judged(kind: str, content: str | None) -> None:
    found = meanings(begun(), item("delta", 1, "a"), item(kind, 3, content))
    assert found == [JUDGED, GAP._replace(ends=kind == "close")]


def test_after_a_jump_the_seq_goes_on_from_there_and_repeats_are_still_found() -> None:
    stream = begun()
    found = meanings(
        stream, item("delta", 5, "a"), item("delta", 6, "b"), item("delta", 5, "a"), item("delta", 1, "late")
    )
    assert found == [GAP, JUDGED, REPEATED, GAP]


def test_open_in_the_place_of_the_next_record_is_no_part_of_a_stream() -> None:
    assert meanings(begun(), item("open", 1)) == [GAP]


def test_a_content_that_is_too_long_is_a_part_that_was_not_judged() -> None:
    long = item("delta", 1, "x" * 300_000)
    assert meanings(begun(), long, item("delta", 2, "b")) == [Meaning(Act.GIVE_UP, "too_long"), JUDGED]


@pytest.mark.parametrize("seq", [0, 1, 2, 9])
@pytest.mark.parametrize(("kind", "content"), [("delta", "b"), ("user", "b"), ("open", None), ("close", None)])
def test_after_a_cut_nothing_is_judged_whatever_its_seq(kind: str, content: str | None, seq: int) -> None:
    """The next owner of the partition does not read the records of such a stream, so it cannot know the `seq`."""
    stream = begun()
    stream.state = "cut"
    ends = kind == "close"
    outcome = "closed" if ends else "after_cut"
    assert stream.meaning(item(kind, seq, content), LIMITS) == Meaning(Act.ANSWER, outcome, ends)


@pytest.mark.parametrize("state", ["open", "unavailable"])
@pytest.mark.parametrize(
    ("times", "outcome"),
    [
        ([59, 60], "judged"),
        ([60, 121], "expired"),
        ([30, 20, 90], "judged"),
        ([*range(50, 651, 50)], "expired"),
        ([None, 59], "judged"),
        ([61], "expired"),
    ],
)
def test_a_stream_expires_by_the_times_of_its_records(
    state: Literal["open", "unavailable"], times: list[float | None], outcome: str
) -> None:
    stream = begun()
    stream.state = state
    items = [item("delta", seq, "x", at_s=at_s) for seq, at_s in enumerate(times, 1)]
    *before, last = meanings(stream, *items)
    assert before == [JUDGED] * len(before)
    assert (last.outcome, last.ends) == (outcome, outcome == "expired")


def test_a_stream_that_was_cut_expires_by_its_age_alone() -> None:
    """Its next owner does not know when the last record came."""
    stream = begun()
    stream.state = "cut"
    assert [stream.meaning(item("delta", 1, "x", at_s=at_s), LIMITS).outcome for at_s in (599, 601)] == [
        "after_cut",
        "expired",
    ]


def test_a_record_without_a_timestamp_is_never_late() -> None:
    assert meanings(begun(), item("delta", 1, "x", at_s=None)) == [JUDGED]
    assert meanings(begun(at_s=None), item("delta", 1, "x", at_s=1e6)) == [JUDGED]


def test_open_begins_a_new_stream_in_the_place_of_one_that_has_expired() -> None:
    assert meanings(begun(), item("open", 0, at_s=61)) == [Meaning(Act.BEGIN, "opened")]


def test_the_same_records_have_the_same_meanings_for_the_next_owner() -> None:
    items: list[Any] = [
        item("user", 1, "hi", at_s=1),
        item("delta", 2, "a", at_s=2),
        item("delta", 2, "a", at_s=3),
        item("delta", 4, "b", at_s=50),
        item("delta", 5, "c", at_s=109),
        item("delta", 6, "d", at_s=170),
    ]
    first = meanings(begun(), *items)
    assert first == meanings(begun(), *items)
    assert [one.outcome for one in first] == ["judged", "judged", "repeated", "out_of_order", "judged", "expired"]
