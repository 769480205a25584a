"""The figures, against values worked out by hand and against slower ways to the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.taxonomy import Severity
from workers.evaluation.counts import STEPS, Counts, Mode, binary
from workers.evaluation.metrics import (
    Bootstrap,
    calibration_error,
    detection,
    figures_of,
    macro_f1,
    reliability,
    roc_auc,
)
from workers.evaluation.samples import Gold, Said, Sample
from workers.evaluation.score import published_average, score

SAFE, CONTROVERSIAL, UNSAFE = Severity
BOOTSTRAP = Bootstrap(rounds=2000, seed=0)

LABELS = st.lists(st.tuples(st.sampled_from(Severity), st.sampled_from(Severity)), min_size=1, max_size=60)
SCORED = st.lists(st.tuples(st.booleans(), st.integers(0, STEPS)), min_size=1, max_size=60)


def sample(
    gold: Severity, said: Severity | None, scores: tuple[float, float, float] | None = None, **fields: Any
) -> Sample:
    return Sample(Gold(severity=gold), Said(said, frozenset(), None, scores), fields)


def counts_of(pairs: list[tuple[Severity, Severity]]) -> Counts:
    counts = Counts()
    for gold, said in pairs:
        counts.add(sample(gold, said))
    return counts


def test_strict_and_loose_of_a_table_calculated_by_hand() -> None:
    pairs = [(UNSAFE, UNSAFE)] * 6 + [(UNSAFE, CONTROVERSIAL)] * 3 + [(UNSAFE, SAFE)]
    pairs += [(SAFE, SAFE)] * 7 + [(SAFE, CONTROVERSIAL)] * 2 + [(SAFE, UNSAFE)]
    figures = figures_of(counts_of(pairs), BOOTSTRAP)
    strict, loose = figures["strict"], figures["loose"]
    assert (strict["precision"]["value"], strict["recall"]["value"]) == (9 / 12, 9 / 10)
    assert strict["f1"]["value"] == pytest.approx(18 / 22)
    assert (loose["precision"]["value"], loose["recall"]["value"]) == (6 / 7, 6 / 10)
    assert loose["f1"]["value"] == pytest.approx(12 / 17)
    assert (strict["false_alarms"]["value"], loose["false_alarms"]["value"]) == (3 / 10, 1 / 10)


@given(LABELS)
def test_the_figures_equal_those_of_counting_samples_one_by_one(pairs: list[tuple[Severity, Severity]]) -> None:
    counts = counts_of(pairs)
    for mode in Mode:
        said = [(mode.flags(gold), mode.flags(guard)) for gold, guard in pairs]
        hits, false_alarms, misses = said.count((True, True)), said.count((False, True)), said.count((True, False))
        found = detection(binary(counts.table, mode), BOOTSTRAP.draw(binary(counts.table, mode)))
        assert found.positives == hits + misses
        if found.positives == 0:
            assert found.f1 is found.recall is None
            continue
        assert found.f1 is not None
        assert found.f1.value == pytest.approx(2 * hits / (2 * hits + false_alarms + misses))


def test_the_intervals_are_as_wide_as_theory_says() -> None:
    table = np.zeros((3, 3), np.int64)
    table[2, 2], table[2, 0] = 320, 80
    found = detection(binary(table, Mode.STRICT), binary(BOOTSTRAP.draw(table), Mode.STRICT))
    assert found.recall is not None
    half = 1.96 * (0.8 * 0.2 / 400) ** 0.5
    assert found.recall.low == pytest.approx(0.8 - half, abs=0.006)
    assert found.recall.high == pytest.approx(0.8 + half, abs=0.006)


def test_the_same_seed_gives_the_same_intervals() -> None:
    counts = counts_of([(UNSAFE, UNSAFE), (SAFE, UNSAFE), (SAFE, SAFE)] * 9)
    assert figures_of(counts, Bootstrap(200, 3)) == figures_of(counts, Bootstrap(200, 3))
    assert figures_of(counts, Bootstrap(200, 3)) != figures_of(counts, Bootstrap(200, 4))


def test_macro_f1_is_the_mean_of_the_severities_that_occur() -> None:
    counts = counts_of([(SAFE, SAFE)] * 3 + [(UNSAFE, SAFE)])
    figure = macro_f1(counts.table, BOOTSTRAP.draw(counts.table))
    assert figure.value == pytest.approx((6 / 7 + 0) / 2)


@given(SCORED)
def test_the_roc_auc_is_the_fraction_of_pairs_in_the_right_order(scored: list[tuple[bool, int]]) -> None:
    histogram = np.zeros((2, STEPS + 1), np.int64)
    for is_flagged, step in scored:
        histogram[int(is_flagged), step] += 1
    positives, negatives = ([step for flag, step in scored if flag is wanted] for wanted in (True, False))
    if not positives or not negatives:
        assert roc_auc(histogram) is None
        return
    wins = sum((one > other) + (one == other) / 2 for one in positives for other in negatives)
    assert roc_auc(histogram) == pytest.approx(wins / len(positives) / len(negatives))


def test_the_calibration_error_is_the_weighted_distance_of_the_bins() -> None:
    histogram = np.zeros((2, STEPS + 1), np.int64)
    histogram[1, 9_000], histogram[0, 9_000] = 6, 4  # said 0.9, is 0.6
    histogram[1, 1_000], histogram[0, 1_000] = 3, 27  # said 0.1, is 0.1
    assert calibration_error(histogram) == pytest.approx(0.3 * 10 / 40)
    low, high = reliability(histogram)
    assert low == pytest.approx((0.1, 0.1, 30))
    assert high == pytest.approx((0.9, 0.6, 10))


def test_groups_categories_and_refusals_are_scored_separately() -> None:
    samples = [
        Sample(
            Gold(severity=UNSAFE, categories=["Violent", "PII"], refusal=True),
            Said(UNSAFE, frozenset(["Violent"]), False, (0.1, 0.2, 0.7)),
            {"role": "assistant", "language": "de"},
        ),
        sample(SAFE, UNSAFE, language="de"),
        sample(SAFE, SAFE, language="en"),
    ]
    report = score(samples, by=("mode", "language"), rounds=100, seed=0)
    assert report["by"]["mode"]["response"]["samples"] == 1
    assert report["by"]["language"]["de"]["strict"]["f1"]["value"] == pytest.approx(2 / 3)
    assert report["categories"]["Violent"]["recall"]["value"] == 1
    assert report["categories"]["PII"]["recall"]["value"] == 0
    assert report["refusal"]["recall"]["value"] == 0
    assert report["all"]["strict"]["calibration_error"] == pytest.approx(0.1)
    assert report["all"]["loose"]["calibration_error"] == pytest.approx(0.3)


def test_the_average_weights_data_sets_equally_and_takes_the_better_mode_of_each() -> None:
    strict_wins = [sample(UNSAFE, CONTROVERSIAL, dataset="a")] * 50
    loose_wins = [sample(UNSAFE, UNSAFE, dataset="b"), sample(SAFE, CONTROVERSIAL, dataset="b")]
    only_safe = [sample(SAFE, UNSAFE, dataset="c")]
    report = score([*strict_wins, *loose_wins, *only_safe], by=("dataset",), rounds=100, seed=0)
    average = published_average(report["by"]["dataset"])
    assert average == pytest.approx({"strict": (1 + 2 / 3) / 2, "loose": (0 + 1) / 2, "best": 1.0})
