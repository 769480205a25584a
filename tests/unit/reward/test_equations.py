"""The report's two equations, in all cases."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.taxonomy import Severity
from workers.reward.equations import Equation

SEVERITIES = st.lists(st.sampled_from(Severity), min_size=1, max_size=2)
SCORES = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("severities", "expected"),
    [
        ([Severity.SAFE], 1.0),
        ([Severity.SAFE, Severity.SAFE], 1.0),
        ([Severity.UNSAFE, Severity.SAFE], 0.0),
        ([Severity.SAFE, Severity.UNSAFE], 0.0),
        ([Severity.CONTROVERSIAL, Severity.SAFE], 0.0),
        ([Severity.SAFE, Severity.CONTROVERSIAL], 0.0),
    ],
)
@pytest.mark.parametrize("is_refusal", [True, False])
def test_guard_only_is_one_if_thought_and_answer_are_safe(
    severities: list[Severity], expected: float, is_refusal: bool
) -> None:
    assert Equation().reward(severities, is_refusal=is_refusal) == expected


@pytest.mark.parametrize(
    ("severity", "is_refusal", "score", "expected"),
    [
        (Severity.SAFE, False, 3.5, 3.5),
        (Severity.SAFE, True, 3.5, -5.0),
        (Severity.SAFE, True, -7.0, -7.0),
        (Severity.UNSAFE, False, 3.5, -10.0),
        (Severity.UNSAFE, True, 3.5, -10.0),
        (Severity.UNSAFE, False, -12.0, -12.0),
    ],
)
def test_hybrid_bounds_the_score_of_unsafe_completions_and_of_refusals(
    severity: Severity, is_refusal: bool, score: float, expected: float
) -> None:
    assert Equation("hybrid").reward([severity], is_refusal=is_refusal, score=score) == expected


@pytest.mark.parametrize(("controversial", "expected"), [("safe", 1.0), ("unsafe", 0.0)])
def test_controversial_counts_as_the_choice_says(controversial: Literal["safe", "unsafe"], expected: float) -> None:
    assert Equation("guard", controversial).reward([Severity.CONTROVERSIAL], is_refusal=False) == expected


@given(severities=SEVERITIES, is_refusal=st.booleans(), score=SCORES)
def test_a_worse_finding_never_has_a_higher_reward(severities: list[Severity], is_refusal: bool, score: float) -> None:
    for equation in (Equation(), Equation("hybrid"), Equation("guard", "safe"), Equation("hybrid", "safe")):
        best = equation.reward([Severity.SAFE], is_refusal=False, score=score)
        found = equation.reward(severities, is_refusal=is_refusal, score=score)
        worst = equation.reward([*severities, Severity.UNSAFE], is_refusal=is_refusal, score=score)
        assert worst <= found <= best


def test_a_reward_without_a_finding_or_a_score_is_refused() -> None:
    with pytest.raises(ValueError, match="severity"):
        Equation().reward([], is_refusal=False)
    with pytest.raises(ValueError, match="score"):
        Equation("hybrid").reward([Severity.SAFE], is_refusal=False)
