"""From the verdicts of a record to rows, strikes and signals."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.policy import Strikes as StrikeRules
from schemas.signal import Signal
from tests.aggregates import harmless, verdict, verdict_id
from tests.unit.aggregates.seen import HOUR_MS, MINUTE_MS, NOW_MS, read_of
from workers.aggregates.counting import Counter, Strikes
from workers.aggregates.rows import Key, Row, decode
from workers.aggregates.signals import crossed
from workers.aggregates.updates import Batch, Forget, Tick, Verdicts, decoded
from workers.core.forgotten import Forgotten
from workers.policy.strikes import CompiledStrikes
from workers.settings import Aggregates

RULES = CompiledStrikes(
    StrikeRules.model_validate(
        {"window_hours": 24, "thresholds": [{"name": "warn", "at": 3, "clear_below": 2}, {"name": "ban", "at": 6}]}
    )
)


class Table:
    """Rows in a dict, the counter that counts into them, and everything that came of it."""

    def __init__(self, rules: CompiledStrikes | None = RULES, **changes: Any) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.rules = rules
        self.settings = Aggregates.model_validate(changes)
        self.counter = Counter(self.settings, lambda _: self.rules, Forgotten())
        self.signals: list[Signal] = []
        self.keys: list[bytes] = []
        self.strikes: dict[str, float | None] = {}
        self.refused = self.repeats = 0
        self.offset = 0

    @property
    def are_full(self) -> bool:
        return len(self.rows) >= self.settings.max_rows

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def row(self, kind: Any, subject: str = "") -> Row:
        return decode(self.rows[Key(kind, "acme", subject).encoded()])

    def record(self, verdicts: Iterable[dict[str, Any]], at_ms: int = NOW_MS) -> bytes:
        batch = Batch(1)
        for one in verdicts:
            batch.add(read_of(one, offset=self.offset, received_ms=at_ms))
            self.offset += 1
        ((_, value),) = batch.records(1)
        return value

    def count(self, value: bytes, now_ms: int = NOW_MS) -> None:
        update = decoded(value)
        assert isinstance(update, Verdicts)
        self._take(self.counter.verdicts(update, self, 0, now_ms), now_ms)

    def add(self, *verdicts: dict[str, Any], at_ms: int = NOW_MS) -> None:
        for one in verdicts:
            self.count(self.record([one], at_ms), at_ms)

    def tick(self, now_ms: int, *, said_ms: int | None = None) -> None:
        self._take(self.counter.tick(Tick(now_ms if said_ms is None else said_ms), self, 0, now_ms), now_ms)

    def look(self, now_ms: int) -> list[Strikes]:
        found = [self.counter.look(name, row, 0, now_ms) for name, row in self.rows.items()]
        return [one for one in found if one is not None]

    def _take(self, counted: Any, now_ms: int) -> None:
        for key, row in counted.rows.items():
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row
        for signal in counted.signals:
            self.signals.append(Signal.model_validate(orjson.loads(signal.value)))
            self.keys.append(signal.key)
        for _, author, standing in counted.strikes:
            self.strikes[author] = None if standing is None else standing.value(now_ms)
        self.refused += counted.refused
        self.repeats += counted.repeats

    def said(self) -> list[tuple[str, str, str]]:
        return [(one.kind, one.threshold_name, one.state) for one in self.signals]


class TestAuthorStrikes:
    def test_a_threshold_is_raised_once_with_its_evidence(self) -> None:
        table = Table()
        table.add(*(verdict(number) for number in range(5)))
        assert table.said() == [("author_strikes", "warn", "raised")]
        (signal,) = table.signals
        assert (signal.tenant_id, signal.subject, signal.value, signal.threshold) == ("acme", "a0", 3, 3)
        assert set(signal.evidence) == {verdict_id(number) for number in range(3)}
        assert table.keys == [b"acme|a0"]
        assert table.strikes == {"a0": 5}

    def test_allowed_verdicts_add_no_strike_and_are_counted(self) -> None:
        table = Table()
        table.add(*(harmless(number) for number in range(9)))
        assert (table.signals, table.strikes) == ([], {})
        assert table.row("author", "a0").hours[NOW_MS // HOUR_MS][0] == 9

    def test_a_correction_takes_its_strike_back_and_clears_with_hysteresis(self) -> None:
        table = Table()
        table.add(*(verdict(number) for number in range(3)))
        table.add(self.undone(0, by=10))
        assert table.strikes == {"a0": 2}
        assert len(table.signals) == 1, "2 is not below 2"
        table.add(self.undone(1, by=11))
        assert [one.state for one in table.signals] == ["raised", "cleared"]
        raised, cleared = table.signals
        assert raised.crossing_id == cleared.crossing_id
        assert raised.signal_id != cleared.signal_id
        assert cleared.threshold == 2

    def test_a_second_crossing_has_another_id(self) -> None:
        table = Table()
        table.add(*(verdict(number) for number in range(3)))
        table.add(self.undone(0, by=10), self.undone(1, by=11), verdict(20), verdict(21))
        assert [one.state for one in table.signals] == ["raised", "cleared", "raised"]
        assert len({one.signal_id for one in table.signals}) == 3
        assert table.signals[0].crossing_id != table.signals[2].crossing_id

    def test_a_person_s_block_adds_a_strike_that_the_worker_did_not(self) -> None:
        table = Table()
        table.add(harmless(1))
        table.add(
            harmless(2, supersedes=verdict_id(1), superseded_decision="allow", corrected={"severity": "Unsafe"})
            | {"decision": "block"}
        )
        assert table.strikes == {"a0": 1}

    def test_a_correction_that_arrives_before_its_verdict_counts_alike(self) -> None:
        table = Table()
        table.add(self.undone(0, by=10), verdict(0), verdict(1))
        assert table.strikes == {"a0": 1}

    def test_time_clears_a_threshold(self) -> None:
        table = Table()
        table.add(*(verdict(number) for number in range(3)))
        table.tick(NOW_MS + 23 * HOUR_MS)
        assert len(table.signals) == 1
        table.tick(NOW_MS + 25 * HOUR_MS)
        assert table.said()[1:] == [("author_strikes", "warn", "cleared")]
        table.tick(NOW_MS + 26 * HOUR_MS)
        assert len(table.signals) == 2

    def test_a_tick_of_a_clock_that_is_ahead_clears_and_deletes_nothing_before_its_time(self) -> None:
        table = Table()
        table.add(*(verdict(number) for number in range(3)))
        rows = dict(table.rows)
        table.look(NOW_MS + 100 * HOUR_MS)
        for said_ms in (NOW_MS + 100 * HOUR_MS, 10**17, -(10**17)):
            table.tick(NOW_MS, said_ms=said_ms)
        assert (len(table.signals), table.rows) == (1, rows)

    def test_without_rules_nothing_is_added_and_what_was_raised_is_cleared(self) -> None:
        table = Table()
        table.add(*(verdict(number) for number in range(3)))
        table.rules = None
        table.add(verdict(4))
        assert table.said() == [("author_strikes", "warn", "raised"), ("author_strikes", "warn", "cleared")]
        assert Table(rules=None).look(NOW_MS) == []

    def test_both_thresholds_of_one_record_are_raised_in_order(self) -> None:
        table = Table()
        table.count(table.record([verdict(number) for number in range(7)]))
        assert [one.threshold_name for one in table.signals] == ["warn", "ban"]

    def test_all_strikes_can_be_written_to_redis_again(self) -> None:
        table = Table()
        table.add(verdict(1), verdict(2, author_id="a1"), harmless(3, author_id="a2"))
        found = {one.author_id: one.standing and one.standing.value(NOW_MS) for one in table.look(NOW_MS)}
        assert found == {"a0": 1, "a1": 1}

    def undone(self, number: int, *, by: int) -> dict[str, Any]:
        return verdict(by, supersedes=verdict_id(number), superseded_decision="block", decision="allow")


class TestRepeats:
    @given(st.lists(st.integers(0, 3), max_size=6), st.randoms(use_true_random=False))
    @settings(max_examples=40)
    def test_records_that_are_counted_again_change_nothing(self, again: list[int], random: Any) -> None:
        table = Table(thread={"min_harmful": 2, "rate": 0.1, "clear_below": 0.05})
        records = [
            table.record(verdict(10 * n + i, author_id=f"a{i}", attributes={"conversation_id": "c"}) for i in range(3))
            for n in range(4)
        ]
        for value in records:
            table.count(value)
        rows, signals = dict(table.rows), list(table.signals)
        for number in again:
            table.count(records[number])
        assert (table.rows, table.signals) == (rows, signals)
        assert table.repeats == 3 * 3 * len(again)

    def test_the_same_crossing_that_is_found_again_has_the_same_id(self) -> None:
        """The worker was killed after the signal, and before the row was written."""
        table = Table()
        table.add(verdict(0), verdict(1))
        before, value = dict(table.rows), table.record([verdict(2)])
        table.count(value)
        table.rows = before
        table.count(value)
        one, other = table.signals
        assert one == other

    def test_a_row_of_repeats_is_written_again(self) -> None:
        table = Table()
        value = table.record([verdict(0)])
        table.count(value)
        update = decoded(value)
        assert isinstance(update, Verdicts)
        assert table.counter.verdicts(update, table, 0, NOW_MS).rows == table.rows

    def test_two_crossings_by_the_same_verdict_have_different_ids(self) -> None:
        """A policy that changes may clear a threshold, and raise it again without a new verdict."""
        key, row, found = Key("author", "acme", "a0"), Row(), []
        for is_raised in (True, False, True):
            change = crossed(
                key, row, "warn", is_raised=is_raised, value=3, threshold=3, evidence=[verdict_id(0)], at_ms=NOW_MS
            )
            found.append(orjson.loads(change.value))
        assert len({one["signal_id"] for one in found}) == 3
        assert found[0]["crossing_id"] == found[1]["crossing_id"] != found[2]["crossing_id"]


class TestThreads:
    def say(self, number: int, harmful: bool) -> dict[str, Any]:
        make = verdict if harmful else harmless
        return make(number, author_id=f"a{number}", attributes={"conversation_id": "c1"})

    def test_a_thread_that_goes_bad_is_raised_and_cleared_when_it_calms(self) -> None:
        table = Table(thread={"rate": 0.5, "clear_below": 0.25, "min_harmful": 3, "window_minutes": 10})
        table.add(*(self.say(number, False) for number in range(3)))
        table.add(*(self.say(number, True) for number in range(10, 13)))
        assert [(one.kind, one.subject, one.value) for one in table.signals] == [("thread", "c1", 0.5)]
        assert table.signals[0].evidence == [verdict_id(number) for number in (12, 11, 10)]
        table.add(*(self.say(number, False) for number in range(20, 26)))
        assert len(table.signals) == 1, "3 of 12 are not below a quarter"
        table.add(self.say(30, False))
        assert [one.state for one in table.signals] == ["raised", "cleared"]

    def test_time_clears_a_thread(self) -> None:
        table = Table(thread={"min_harmful": 2, "window_minutes": 10})
        table.add(self.say(1, True), self.say(2, True))
        table.tick(NOW_MS + 5 * MINUTE_MS)
        assert len(table.signals) == 1
        table.tick(NOW_MS + 11 * MINUTE_MS)
        assert [one.state for one in table.signals] == ["raised", "cleared"]


class TestSimilarContents:
    HASH = 0x0123_4567_89AB_CDEF

    def sent(self, number: int, similarity: int | None = None, **changes: Any) -> dict[str, Any]:
        value = self.HASH if similarity is None else similarity
        return harmless(number, **{"author_id": f"a{number}", "similarity": f"{value:016x}", **changes})

    def kinds(self, table: Table) -> int:
        return sum(b'"content"' in key for key in table.rows)

    def test_the_same_content_from_many_authors_is_one_signal(self) -> None:
        table = Table(similar={"authors": 5, "clear_below": 3})
        table.add(*(self.sent(number) for number in range(20)))
        assert [(one.kind, one.subject, one.value) for one in table.signals] == [
            ("similar_content", f"{self.HASH:016x}", 5)
        ]
        assert table.signals[0].evidence == [verdict_id(number) for number in (4, 3, 2, 1, 0)]

    def test_one_author_who_repeats_a_content_is_none(self) -> None:
        table = Table(similar={"authors": 3, "clear_below": 2})
        table.add(*(self.sent(number, author_id="a0") for number in range(20)))
        assert table.signals == []

    def test_nearly_the_same_content_counts_and_other_content_of_the_band_does_not(self) -> None:
        table = Table(similar={"authors": 4, "clear_below": 2})
        table.add(*(self.sent(n, self.HASH ^ (1 << 63) ^ (1 << (40 + n))) for n in range(3)))
        table.add(*(self.sent(20 + n, self.HASH ^ 0xFFFF_0000_FFFF_0000) for n in range(3)))
        assert table.signals == []
        table.add(self.sent(30, self.HASH ^ (1 << 63)))
        assert len(table.signals) == 1

    @given(st.integers(0, 2**64 - 1), st.sets(st.integers(0, 63), min_size=1, max_size=3))
    def test_a_pair_within_three_bits_meets_in_exactly_one_row_that_counts_it(self, one: int, bits: set[int]) -> None:
        other = one ^ sum(1 << bit for bit in bits)
        table = Table(similar={"authors": 2, "clear_below": 1})
        table.add(self.sent(1, one), self.sent(2, other))
        assert len(table.signals) == 1

    def test_a_content_that_came_once_has_no_row(self) -> None:
        table = Table()
        table.add(*(self.sent(number, number * 0x0001_0001_0001_0001) for number in range(50)))
        assert self.kinds(table) == 0
        table.add(self.sent(60, 0))
        assert self.kinds(table) == 4

    def test_authors_count_for_the_window_only_and_the_signal_clears(self) -> None:
        table = Table(similar={"authors": 3, "clear_below": 2, "window_minutes": 10})
        table.add(self.sent(1), self.sent(2), at_ms=NOW_MS - 11 * MINUTE_MS)
        table.add(self.sent(3), self.sent(4))
        assert table.signals == []
        table.add(self.sent(5))
        table.tick(NOW_MS + 9 * MINUTE_MS)
        assert [one.state for one in table.signals] == ["raised"]
        table.tick(NOW_MS + 11 * MINUTE_MS)
        assert [one.state for one in table.signals] == ["raised", "cleared"]
        table.look(NOW_MS + 12 * MINUTE_MS)
        table.tick(NOW_MS + 12 * MINUTE_MS)
        assert self.kinds(table) == 0

    def test_no_author_is_named_in_the_row_of_a_content(self) -> None:
        table = Table()
        table.add(*(self.sent(number, author_id=f"canary-{number}") for number in range(9)))
        assert not any(b"canary" in row for key, row in table.rows.items() if b'"content"' in key)


class TestBounds:
    def test_an_idle_row_is_deleted_and_one_with_strikes_is_kept_as_long_as_they_count(self) -> None:
        table = Table(idle_hours=2)
        table.add(harmless(1, author_id="quiet", attributes={"conversation_id": "c"}), verdict(2, author_id="struck"))
        for hours, left in ((1, 4), (3, 2), (27, 1)):
            table.look(NOW_MS + hours * HOUR_MS)
            table.tick(NOW_MS + hours * HOUR_MS)
            assert len(table.rows) == left, hours

    def test_a_full_table_takes_no_new_author_and_goes_on_counting_the_others(self) -> None:
        table = Table(max_rows=1_000)
        table.add(*(harmless(number, author_id=f"a{number}") for number in range(1_200)))
        assert len(table.rows) == 1_000
        assert table.refused == 201
        table.add(harmless(2_000, author_id="a1"), harmless(2_001, author_id="new", tenant_id="other"))
        assert table.row("author", "a1").hours[NOW_MS // HOUR_MS][0] == 2
        assert Key("tenant", "other", "").encoded() in table.rows

    def test_a_row_of_an_author_is_small_and_bounded(self) -> None:
        table = Table()
        table.add(verdict(1))
        assert len(table.rows[Key("author", "acme", "a0").encoded()]) < 350
        for minutes in range(70):
            table.count(
                table.record((verdict(minutes * 100 + n) for n in range(30)), NOW_MS + minutes * MINUTE_MS),
                NOW_MS + minutes * MINUTE_MS,
            )
        assert len(table.rows[Key("author", "acme", "a0").encoded()]) < 20_000


def test_a_request_to_forget_deletes_the_row_and_the_strikes() -> None:
    table = Table()
    table.add(*(verdict(number) for number in range(4)))
    key = Key("author", "acme", "a0").encoded()
    table._take(table.counter.forget(Forget(key), 0), NOW_MS)
    assert key not in table.rows
    assert table.strikes == {"a0": None}
    table.tick(NOW_MS)
    assert [signal.state for signal in table.signals] == ["raised"], "a threshold in force ends without a signal"
    table.add(*(verdict(number) for number in range(4, 8)))
    first, second = table.signals
    assert (first.state, second.state) == ("raised", "raised")
    assert first.crossing_id != second.crossing_id


def test_a_row_that_comes_back_after_the_request_is_deleted_by_the_next_look() -> None:
    table = Table()
    table.add(*(verdict(number) for number in range(4)), verdict(5, author_id="a1"))
    key = Key("author", "acme", "a0").encoded()
    stored = table.rows[key]
    table._take(table.counter.forget(Forget(key, NOW_MS), 0), NOW_MS)
    table.rows[key] = stored
    assert {one.author_id: one.standing is None for one in table.look(NOW_MS)} == {"a0": True, "a1": False}
    table.tick(NOW_MS)
    assert (key in table.rows, len(table.signals)) == (False, 1), "deleted without a signal"
    assert table.row("author", "a1").newest_ms == NOW_MS


def test_verdicts_that_are_read_after_the_request_count_only_if_their_events_are_newer() -> None:
    table = Table()
    key = Key("author", "acme", "a0").encoded()
    table._take(table.counter.forget(Forget(key, NOW_MS), 0), NOW_MS)
    table.add(*(verdict(number) for number in range(4)), at_ms=NOW_MS)
    assert (key in table.rows, table.signals) == (False, [])
    assert table.row("tenant").hours[NOW_MS // HOUR_MS][0] == 4, "the tenant's count has them"
    table.add(verdict(10, author_id="a1"))
    assert table.row("author", "a1").hours[NOW_MS // HOUR_MS][0] == 1
    table.add(verdict(11), at_ms=NOW_MS + 1)
    assert table.row("author", "a0").hours[NOW_MS // HOUR_MS][0] == 1


def test_large_batches_become_several_records_and_lose_no_verdict() -> None:
    batch = Batch(4)
    for number in range(6_000):
        batch.add(read_of(verdict(number, author_id=f"author-{number % 1_700}"), offset=number))
    found: dict[bytes, int] = {}
    for partition, value in batch.records(1):
        assert len(value) < 900_000
        assert 0 <= partition < 4
        update = decoded(value)
        assert isinstance(update, Verdicts)
        for key, group in update.groups:
            found[key] = found.get(key, 0) + len(group)
    assert sum(found.values()) == 2 * 6_000
