"""Computes the figures from the counts.

A ratio without a denominator is 0, as in the published scoring. If no gold is positive, there is no F1 at all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.evaluation.counts import STEPS, Counted, Counts, Mode, binary

BINS = 15
"""Bins of equal width for the calibration error; Guo et al. (2017) use the same number."""
COVERED = 95
"""Per cent of the resampled figures in an interval."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure, and its interval from resampling."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Detection:
    """How well one class is found. `positives` is the number of samples that have it; None: not defined."""

    samples: int
    positives: int
    precision: Figure | None
    recall: Figure | None
    f1: Figure | None
    false_alarms: Figure | None
    """The fraction of the samples without the class that the guard gives the class."""


class Bootstrap:
    """Resamples counts: drawing n samples with replacement equals drawing their counts from a multinomial."""

    def __init__(self, rounds: int, seed: int) -> None:
        self._rounds = rounds
        self._random = np.random.default_rng(seed)

    def draw(self, counted: Counted) -> Counted:
        """Return resampled counts, shape (rounds, *counted.shape)."""
        total = int(counted.sum())
        shares = counted.reshape(-1) / max(1, total)
        if total == 0:
            return np.zeros((self._rounds, *counted.shape), np.int64)
        return self._random.multinomial(total, shares, self._rounds).reshape(self._rounds, *counted.shape)

    def draw_sums(self, counted: Counted) -> Counted:
        """Return the sums of resampled samples, shape (rounds, *counted.shape[1:]).

        Each sample has counts of its own, `counted[sample]`: those of one sample are drawn together.
        """
        size = len(counted)
        if size == 0:
            return np.zeros((self._rounds, *counted.shape[1:]), np.int64)
        flat, even = counted.reshape(size, -1), np.full(size, 1 / size)
        sums = [self._random.multinomial(size, even) @ flat for _ in range(self._rounds)]
        return np.array(sums, np.int64).reshape(self._rounds, *counted.shape[1:])


def detection(counted: Counted, drawn: Counted) -> Detection:
    """Return the figures of a table, gold (0, 1) by the guard's (0, 1); intervals from resamples (rounds, 2, 2)."""
    figures = [
        Figure(float(value), *(float(limit) for limit in _interval(values)))
        for value, values in zip(_rates(counted), _rates(drawn), strict=True)
    ]
    negatives, positives = (int(count) for count in counted.sum(1))
    precision, recall, f1 = figures[:3] if positives else (None, None, None)
    false_alarms = figures[3] if negatives else None
    return Detection(negatives + positives, positives, precision, recall, f1, false_alarms)


def _rates(counted: Counted) -> tuple[Floats, Floats, Floats, Floats]:
    hits, misses, false_alarms = counted[..., 1, 1], counted[..., 1, 0], counted[..., 0, 1]
    return (
        _ratio(hits, hits + false_alarms),
        _ratio(hits, hits + misses),
        _ratio(2 * hits, 2 * hits + misses + false_alarms),
        _ratio(false_alarms, false_alarms + counted[..., 0, 0]),
    )


def shares(counted: Counted, drawn: Counted) -> list[Figure]:
    """Return the part that each count has in their sum; intervals from resamples (rounds, *counted.shape)."""
    parts = _ratio(counted, counted.sum())
    limits = _interval(_ratio(drawn, drawn.sum(-1, keepdims=True)), axis=0)
    return [
        Figure(float(part), float(low), float(high))
        for part, low, high in zip(parts, limits[0], limits[1], strict=True)
    ]


def macro_f1(table: Counted, drawn: Counted) -> Figure:
    """Return the mean F1 of the severities that occur in the gold or in the guard's outputs."""

    def mean(tables: Counted) -> Floats:
        hits = np.diagonal(tables, axis1=-2, axis2=-1)
        marginals = tables.sum(-1) + tables.sum(-2)
        occurs = (marginals > 0).sum(-1)
        return _ratio(_ratio(2 * hits, marginals).sum(-1), occurs)

    return Figure(float(mean(table)), *(float(limit) for limit in _interval(mean(drawn))))


def roc_auc(histogram: Counted) -> float | None:
    """Return the probability that a flagged sample scores above another; ties count half. None for one class."""
    negatives, positives = histogram
    if not negatives.any() or not positives.any():
        return None
    below = np.cumsum(negatives) - negatives
    wins = (positives * (below + negatives / 2)).sum()
    return float(wins / (positives.sum() * negatives.sum()))


def reliability(histogram: Counted) -> list[tuple[float, float, int]]:
    """Return (mean probability, fraction of flagged gold, samples) of each bin that is not empty."""
    scores = np.arange(STEPS + 1) / STEPS
    which = np.minimum((scores * BINS).astype(int), BINS - 1)
    everyone = histogram.sum(0)
    bins = []
    for index in range(BINS):
        here = which == index
        count = int(everyone[here].sum())
        if count:
            bins.append(
                (float((everyone * scores)[here].sum() / count), float(histogram[1][here].sum() / count), count)
            )
    return bins


def calibration_error(histogram: Counted) -> float | None:
    """Return the expected calibration error: the mean distance of probability and observed fraction."""
    bins = reliability(histogram)
    total = sum(count for _, _, count in bins)
    return sum(abs(mean - share) * count for mean, share, count in bins) / total if total else None


def figures_of(counts: Counts, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return all figures of one group as plain values."""
    drawn = bootstrap.draw(counts.table)
    figures: dict[str, Any] = {
        "samples": counts.total,
        "unreadable": counts.unreadable,
        "macro_f1": asdict(macro_f1(counts.table, drawn)),
        "table": counts.table.tolist(),
    }
    for mode in Mode:
        found = asdict(detection(binary(counts.table, mode), binary(drawn, mode)))
        if counts.has_scores:
            found["roc_auc"] = roc_auc(counts.histogram[mode])
            found["calibration_error"] = calibration_error(counts.histogram[mode])
            found["reliability"] = reliability(counts.histogram[mode])
        figures[mode] = found
    return figures


def _ratio(part: Any, whole: Any) -> Floats:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    ratio: Floats = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return ratio


def _interval(values: Floats, axis: int | None = None) -> Floats:
    rest = (100 - COVERED) / 2
    limits: Floats = np.percentile(values, [rest, 100 - rest], axis=axis)
    return limits
