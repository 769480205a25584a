"""A row counts each verdict once, in its minute and its hour."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.aggregates import harmless, verdict, verdict_id
from tests.unit.aggregates.seen import HOUR_MS, MINUTE_MS, NOW_MS, named, seen_of
from workers.aggregates.rows import MAX_EVIDENCE, MAX_KNOWN, Key, Row, decode, encode, key_of
from workers.aggregates.windows import total


def test_a_row_survives_its_encoding() -> None:
    row = Row()
    for number in range(3):
        assert row.takes(seen_of(verdict(number), offset=number), 7)
        row.count(seen_of(verdict(number), offset=number), NOW_MS)
    assert decode(encode(row)) == row
    assert len(encode(Row())) == 1, "a new row needs no space"


def test_fields_of_a_newer_version_are_ignored() -> None:
    assert decode(msgspec.msgpack.encode({"n": 5, "newer": [1]})).newest_ms == 5


@given(st.text(max_size=20), st.text(max_size=20))
def test_keys_are_as_different_as_what_they_name(tenant: str, author: str) -> None:
    key = Key("author", tenant, author)
    assert key_of(key.encoded()) == key
    assert key.encoded() != Key("author", tenant + author, "").encoded() or author == ""


class TestRepeats:
    def test_a_verdict_that_is_read_again_is_not_taken(self) -> None:
        row = Row()
        assert [row.takes(seen_of(verdict(n), offset=n), 1) for n in (0, 1, 2, 0, 1, 2, 3)] == [True] * 3 + [
            False
        ] * 3 + [True]

    def test_partitions_have_positions_of_their_own(self) -> None:
        row = Row()
        assert row.takes(seen_of(verdict(1), partition=0, offset=9), 1)
        assert row.takes(seen_of(verdict(2), partition=1, offset=3), 1)

    def test_a_verdict_that_is_written_twice_is_not_taken_while_its_id_is_known(self) -> None:
        row = Row()
        assert row.takes(seen_of(verdict(0), offset=0), 1)
        assert not row.takes(seen_of(verdict(0), offset=5), 1)
        for number in range(1, MAX_KNOWN + 1):
            assert row.takes(seen_of(verdict(number), offset=5 + number), 1)
        assert row.takes(seen_of(verdict(0), offset=500), 1)
        assert len(row.known) == MAX_KNOWN

    def test_a_verdict_topic_that_was_made_again_begins_at_its_beginning(self) -> None:
        row = Row()
        assert row.takes(seen_of(verdict(1), offset=900), 1)
        assert row.takes(seen_of(verdict(2), offset=0), 2)
        assert row.positions == {0: 0}

    @given(st.lists(st.integers(0, 12), max_size=8))
    def test_reading_again_from_any_offsets_counts_each_verdict_once(self, restarts: list[int]) -> None:
        """A restart continues somewhere before the last offset that was read, so verdicts come in runs."""
        row, taken, end = Row(), [], 6
        for begin in [0, *restarts]:
            run = range(min(begin, end), min(end + 1, 13))
            taken += [offset for offset in run if row.takes(seen_of(verdict(offset), offset=offset), 1)]
            end = min(end + 1, 13)
        assert taken == list(range(max(taken) + 1))


class TestCounts:
    def test_decisions_severities_and_categories_are_counted(self) -> None:
        row = Row()
        for number, one in enumerate([verdict(0), harmless(1), verdict(2, severity=None, decision="review")]):
            row.count(seen_of(one, offset=number), NOW_MS)
        counts = total(row.minutes, 0, 2**40)
        assert named(counts) == {
            "verdicts": 3,
            "harmful": 1,
            "allow": 1,
            "review": 1,
            "block": 1,
            "Safe": 1,
            "Unsafe": 1,
            "unjudged": 1,
            "Violent": 1,
        }
        assert row.minutes.keys() == {NOW_MS // MINUTE_MS}
        assert row.hours.keys() == {NOW_MS // HOUR_MS}

    def test_an_event_that_could_not_be_judged_is_not_harmful(self) -> None:
        row = Row()
        row.count(seen_of(verdict(0, severity=None, decision="block")), NOW_MS)
        assert "harmful" not in named(total(row.minutes, 0, 2**40))

    def test_a_correction_moves_its_event_to_another_decision(self) -> None:
        row = Row()
        row.count(seen_of(verdict(0)), NOW_MS)
        row.count(seen_of(verdict(1, supersedes=verdict_id(0), superseded_decision="block", decision="allow")), NOW_MS)
        counts = named(total(row.minutes, 0, 2**40))
        assert (counts["verdicts"], counts["allow"], counts["corrected"]) == (1, 1, 1)
        assert "block" not in counts
        assert "harmful" not in counts
        assert row.evidence == []

    def test_an_event_that_only_a_person_found_harmful_counts_until_another_person_allows_it(self) -> None:
        row = Row()
        unjudged: dict[str, Any] = {"severity": None, "categories": []}
        verdicts = [
            verdict(1, decision="review", **unjudged),
            verdict(
                2,
                supersedes=verdict_id(1),
                superseded_decision="review",
                corrected={"severity": "Unsafe", "categories": None},
                **unjudged,
            ),
            verdict(3, supersedes=verdict_id(2), superseded_decision="block", decision="allow", **unjudged),
        ]
        harmful = []
        for offset, one in enumerate(verdicts):
            row.count(seen_of(one, offset=offset), NOW_MS)
            harmful.append(named(row.hours[NOW_MS // HOUR_MS]).get("harmful", 0))
        assert harmful == [0, 1, 0]
        assert row.evidence == []

    def test_a_correction_of_an_expired_verdict_makes_no_count_negative(self) -> None:
        row = Row()
        row.count(seen_of(verdict(1, supersedes=verdict_id(0), superseded_decision="block", decision="allow")), NOW_MS)
        assert named(total(row.minutes, 0, 2**40)) == {"allow": 1, "corrected": 1}

    def test_a_time_in_the_future_is_now(self) -> None:
        row = Row()
        assert row.count(seen_of(verdict(0), received_ms=NOW_MS + HOUR_MS), NOW_MS) == NOW_MS
        assert row.newest_ms == NOW_MS

    @pytest.mark.parametrize(("late_ms", "minutes", "hours"), [(59, 2, 1), (61, 1, 2), (25 * 60, 1, 1)])
    def test_a_late_verdict_counts_in_its_own_window_as_long_as_it_is_kept(
        self, late_ms: int, minutes: int, hours: int
    ) -> None:
        now_ms = NOW_MS // HOUR_MS * HOUR_MS + 59 * MINUTE_MS
        row = Row()
        row.count(seen_of(verdict(0), received_ms=now_ms), now_ms)
        row.count(seen_of(verdict(1), received_ms=now_ms - late_ms * MINUTE_MS), now_ms)
        assert (len(row.minutes), len(row.hours)) == (minutes, hours)

    @given(st.lists(st.integers(0, 3 * 24 * 60), max_size=40))
    def test_the_order_of_verdicts_does_not_change_the_windows_and_they_stay_bounded(self, ages: list[int]) -> None:
        def counted(order: list[int]) -> Row:
            row = Row()
            for age in order:
                row.count(seen_of(verdict(0), received_ms=NOW_MS - age * MINUTE_MS), NOW_MS)
            return row

        one, other = counted(ages), counted(sorted(ages))
        assert (one.minutes, one.hours) == (other.minutes, other.hours)
        assert len(one.minutes) <= 60
        assert len(one.hours) <= 24
        assert len(one.evidence) <= MAX_EVIDENCE
