"""An author's strikes: what a verdict adds, what a correction takes back, and when a threshold is crossed."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.policy import Strikes
from workers.policy.strikes import (
    HALF_LIVES,
    MAX_CONTRIBUTIONS,
    MAX_STEPS,
    CompiledStrikes,
    Contribution,
    time_of,
)

HOUR_MS = 3_600_000
NOW_MS = 1_795_000_000_000


def rules(**fields: Any) -> CompiledStrikes:
    return CompiledStrikes(Strikes.model_validate(fields))


def verdict(severity: str | None = "Unsafe", *categories: str, **changes: Any) -> dict[str, Any]:
    return {
        "verdict_id": "0" * 32,
        "decision": "block",
        "assessment": None if severity is None else {"severity": severity, "categories": list(categories)},
        "duplicate_of": None,
        "source": {"topic": "chat", "partition": 0, "offset": 1, "timestamp": NOW_MS},
        "timings": {"received_at": NOW_MS + 5, "judged_ms": 1.0},
        **changes,
    }


def weight_of(strikes: CompiledStrikes, found: dict[str, Any]) -> float | None:
    contribution = strikes.contribution(found)
    return None if contribution is None else contribution.weight


def added(strikes: CompiledStrikes, contributions: list[Contribution], now_ms: int = NOW_MS) -> list[Contribution]:
    held: list[Contribution] = []
    for contribution in contributions:
        held = strikes.add(held, contribution, now_ms)
    return held


class TestWeights:
    WEIGHTS = (
        {"severity": "Unsafe", "categories": ["Violent", "Suicide & Self-Harm"], "weight": 3},
        {"severity": "Unsafe", "weight": 1},
        {"categories": ["Jailbreak"], "weight": 0.5},
    )

    @pytest.mark.parametrize(
        ("severity", "categories", "expected"),
        [
            ("Unsafe", ["Violent"], 3),
            ("Unsafe", ["PII", "Violent"], 3),
            ("Unsafe", ["PII"], 1),
            ("Unsafe", [], 1),
            ("Controversial", ["Violent"], None),
            ("Controversial", ["Jailbreak"], 0.5),
            ("Safe", [], None),
        ],
    )
    def test_the_first_weight_that_matches_severity_and_one_category_counts(
        self, severity: str, categories: list[str], expected: float | None
    ) -> None:
        assert weight_of(rules(weights=self.WEIGHTS), verdict(severity, *categories)) == expected

    @pytest.mark.parametrize(("decision", "expected"), [("block", 1), ("review", 1), ("allow", None)])
    def test_by_default_an_unsafe_verdict_that_is_not_allowed_counts_one(
        self, decision: str, expected: float | None
    ) -> None:
        assert weight_of(rules(), verdict(decision=decision)) == expected
        assert weight_of(rules(), verdict("Controversial", decision=decision)) is None

    def test_a_duplicate_counts_nothing(self) -> None:
        assert weight_of(rules(), verdict(duplicate_of="1" * 32)) is None

    def test_a_verdict_without_an_assessment_counts_nothing_until_a_person_names_the_severity(self) -> None:
        anything = rules(weights=[{"weight": 2}])
        assert weight_of(anything, verdict(None)) is None
        by_person = {"supersedes": "1" * 32, "corrected": {"severity": "Unsafe", "categories": None}}
        assert weight_of(anything, verdict(None, **by_person)) == 2

    def test_a_person_s_correction_replaces_the_model_s_severity_and_categories(self) -> None:
        strikes = rules(weights=self.WEIGHTS)
        for corrected, expected in [
            ({"severity": None, "categories": ["Violent"]}, 3),
            ({"severity": None, "categories": []}, 1),
            ({"severity": "Controversial", "categories": None}, 0),
            (None, 1),
        ]:
            found = verdict("Unsafe", "PII", supersedes="1" * 32, corrected=corrected)
            assert weight_of(strikes, found) == expected

    def test_a_superseding_verdict_of_allow_counts_zero_and_not_nothing(self) -> None:
        found = verdict(supersedes="1" * 32, decision="allow")
        assert rules().contribution(found) == Contribution("0" * 32, NOW_MS, 0.0, "1" * 32)

    @pytest.mark.parametrize(
        "broken",
        [{}, {"decision": "block"}, verdict() | {"source": None}, verdict() | {"assessment": ["Unsafe"]}],
    )
    def test_another_document_than_a_verdict_raises_an_error_that_can_be_named(self, broken: dict[str, Any]) -> None:
        with pytest.raises((LookupError, TypeError, ValueError, AttributeError)):
            rules().contribution(broken)


@pytest.mark.parametrize(
    ("sent_ms", "expected"), [(NOW_MS, NOW_MS), (None, NOW_MS + 5), (NOW_MS + 9_999, NOW_MS + 5), (0, 0)]
)
def test_a_producer_s_clock_that_is_ahead_prolongs_no_strike(sent_ms: int | None, expected: int) -> None:
    source = {"topic": "chat", "partition": 0, "offset": 1, "timestamp": sent_ms}
    assert time_of(verdict(source=source)) == expected


class TestDecay:
    def test_in_a_window_a_strike_counts_in_full_and_then_no_more(self) -> None:
        strikes = rules(window_hours=24)
        held = added(strikes, [Contribution("a", NOW_MS, 2.0)])
        end_ms = NOW_MS + 24 * HOUR_MS
        assert [strikes.value(held, at_ms) for at_ms in (NOW_MS, end_ms - 1, end_ms)] == [2, 2, 0]

    def test_without_both_the_window_is_thirty_days(self) -> None:
        strikes = rules()
        assert (strikes.decay.window_ms, strikes.decay.half_life_ms) == (720 * HOUR_MS, None)

    def test_with_a_half_life_half_a_strike_is_left_after_each(self) -> None:
        strikes = rules(half_life_hours=10)
        held = added(strikes, [Contribution("a", NOW_MS, 8.0)])
        values = [strikes.value(held, NOW_MS + hours * HOUR_MS) for hours in (0, 10, 20, 10 * HALF_LIVES)]
        assert values == [8, 4, 2, 0]

    @pytest.mark.parametrize("decay", [{"window_hours": 1}, {"half_life_hours": 1}])
    def test_a_strike_of_a_worker_whose_clock_is_ahead_counts_in_full(self, decay: dict[str, int]) -> None:
        strikes = rules(**decay)
        assert strikes.value(added(strikes, [Contribution("a", NOW_MS + 5_000, 3.0)]), NOW_MS) == 3

    def test_a_strike_from_before_the_window_is_not_kept(self) -> None:
        strikes = rules(window_hours=1)
        assert added(strikes, [Contribution("a", NOW_MS - HOUR_MS, 1.0)]) == []
        assert len(added(strikes, [Contribution("a", NOW_MS - HOUR_MS + 1, 1.0)])) == 1


ids = st.sampled_from("abcdefgh")
times = st.integers(NOW_MS - 100 * HOUR_MS, NOW_MS + HOUR_MS)
weights = st.floats(0, 1_000)
decays = st.sampled_from([{"window_hours": 50}, {"half_life_hours": 20}])


@st.composite
def histories(draw: st.DrawFn) -> list[Contribution]:
    """Verdicts on some events, each with a chain of superseding verdicts, as Kafka has them."""
    found = []
    for event in draw(st.sets(ids, min_size=1)):
        at_ms, before = draw(times), None
        for number in range(draw(st.integers(1, 4))):
            found.append(Contribution(f"{event}{number}", at_ms, draw(weights), before))
            before = f"{event}{number}"
    return found


def last_of_each(history: list[Contribution]) -> list[Contribution]:
    superseded = {entry.supersedes for entry in history}
    return [entry for entry in history if entry.verdict_id not in superseded]


@given(st.data(), histories(), decays)
def test_the_order_of_verdicts_and_their_repeats_do_not_change_the_strikes(
    data: st.DataObject, history: list[Contribution], decay: dict[str, int]
) -> None:
    strikes = rules(**decay)
    repeats = data.draw(st.lists(st.sampled_from(history), max_size=5))
    shuffled = data.draw(st.permutations(history + repeats))
    assert added(strikes, shuffled) == added(strikes, history)


@given(st.data(), histories(), decays, st.integers(0, 200))
def test_only_the_last_verdict_on_each_event_counts(
    data: st.DataObject, history: list[Contribution], decay: dict[str, int], hours: int
) -> None:
    """A take-back is exact: the strikes are as if the superseded verdict had never been there."""
    strikes, at_ms = rules(**decay), NOW_MS + hours * HOUR_MS
    held = added(strikes, data.draw(st.permutations(history)))
    assert strikes.value(held, at_ms) == strikes.value(last_of_each(history), at_ms)


def test_an_appeal_takes_a_strike_back_although_the_verdict_is_read_again() -> None:
    strikes = rules()
    held = added(strikes, [Contribution("a", NOW_MS, 1.0), Contribution("b", NOW_MS, 0.0, "a")])
    assert strikes.value(held, NOW_MS) == 0
    assert strikes.value(strikes.add(held, Contribution("a", NOW_MS, 1.0), NOW_MS), NOW_MS) == 0


def test_an_appeal_on_a_decision_gives_the_strike_again() -> None:
    strikes = rules()
    held = added(
        strikes,
        [Contribution("a", NOW_MS, 1.0), Contribution("b", NOW_MS, 0.0, "a"), Contribution("c", NOW_MS, 1.0, "b")],
    )
    assert strikes.value(held, NOW_MS) == 1
    assert strikes.value(strikes.add(held, Contribution("a", NOW_MS, 1.0), NOW_MS), NOW_MS) == 1


def test_only_the_newest_verdicts_of_an_author_are_kept() -> None:
    strikes = rules()
    ages_ms = random.Random(1).sample(range(1_000), MAX_CONTRIBUTIONS + 20)
    held = added(strikes, [Contribution(f"{age:04}", NOW_MS - age, 1.0) for age in ages_ms])
    assert [NOW_MS - entry.at_ms for entry in held] == sorted(ages_ms)[:MAX_CONTRIBUTIONS]


@given(histories(), st.integers(0, 100))
def test_a_standing_has_the_same_value_as_the_verdicts_at_any_later_time(
    history: list[Contribution], hours: int
) -> None:
    held = [entry._replace(at_ms=min(entry.at_ms, NOW_MS)) for entry in last_of_each(history)]
    at_ms = NOW_MS + hours * HOUR_MS
    windowed = rules(window_hours=50)
    assert windowed.standing(held, NOW_MS).value(at_ms) == windowed.value(held, at_ms)
    fading = rules(half_life_hours=20)
    total = sum(entry.weight for entry in held)
    assert fading.standing(held, NOW_MS).value(at_ms) == pytest.approx(
        fading.value(held, at_ms), abs=0.001 + total / 2**HALF_LIVES
    )


@given(st.integers(), st.integers(MAX_STEPS + 1, MAX_CONTRIBUTIONS), st.integers(0, 3_000))
def test_a_standing_of_many_strikes_is_short_and_never_above_them(seed: int, count: int, later: int) -> None:
    minute_ms = 60_000
    strikes = rules(window_hours=50)
    ages = random.Random(seed).choices(range(3_000), k=count)
    held = [Contribution(f"{at:04}", NOW_MS - age * minute_ms, 1.0) for at, age in enumerate(ages)]
    standing = strikes.standing(held, NOW_MS)
    at_ms = NOW_MS + later * minute_ms
    assert len(standing.steps) <= MAX_STEPS
    assert strikes.value(held, at_ms + 100 * minute_ms) <= standing.value(at_ms) <= strikes.value(held, at_ms)


class TestThresholds:
    THRESHOLDS = ({"name": "ban", "at": 10, "clear_below": 10}, {"name": "warn", "at": 3})

    def test_a_threshold_is_raised_when_reached_and_cleared_below_its_lower_level(self) -> None:
        strikes = rules(thresholds=self.THRESHOLDS)
        seen = []
        in_force: frozenset[str] = frozenset()
        for value in (2.9, 3, 12, 10, 9.9, 1.5, 1.4, 3):
            raised, cleared, in_force = strikes.crossings(in_force, value)
            seen.append((raised, cleared))
        assert seen == [
            ((), ()),
            (("warn",), ()),
            (("ban",), ()),
            ((), ()),
            ((), ("ban",)),
            ((), ()),
            ((), ("warn",)),
            (("warn",), ()),
        ]

    def test_several_thresholds_may_be_crossed_at_once_the_lowest_first(self) -> None:
        strikes = rules(thresholds=self.THRESHOLDS)
        assert strikes.crossings((), 50) == (("warn", "ban"), (), frozenset({"warn", "ban"}))
        assert strikes.crossings({"warn", "ban"}, 0) == ((), ("ban", "warn"), frozenset())

    def test_a_threshold_that_the_rules_no_longer_have_is_cleared(self) -> None:
        assert rules(thresholds=self.THRESHOLDS).crossings({"old", "warn"}, 5) == ((), ("old",), frozenset({"warn"}))

    @given(
        st.lists(st.tuples(st.floats(0.1, 20), st.floats(0, 1)), max_size=4),
        st.lists(st.floats(0, 25), min_size=1, max_size=30),
    )
    def test_at_one_level_nothing_flaps_and_raised_and_cleared_alternate(
        self, levels: list[tuple[float, float]], values: list[float]
    ) -> None:
        strikes = rules(
            thresholds=[
                {"name": f"t{number}", "at": at, "clear_below": at * part} for number, (at, part) in enumerate(levels)
            ]
        )
        in_force: frozenset[str] = frozenset()
        for value in values:
            crossed = strikes.crossings(in_force, value)
            assert in_force.isdisjoint(crossed.raised)
            assert in_force.issuperset(crossed.cleared)
            assert crossed.in_force == in_force.union(crossed.raised).difference(crossed.cleared)
            in_force = crossed.in_force
            assert strikes.crossings(in_force, value) == ((), (), in_force)
