"""Scores a gold file: all samples, and each value of the grouping fields."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from schemas.taxonomy import Category, Role
from workers.errors import Misconfigured
from workers.evaluation.counts import Counted, Counts, Mode
from workers.evaluation.metrics import Bootstrap, detection, figures_of
from workers.evaluation.samples import Sample

BY = ("mode", "language", "dataset")
"""The default grouping fields. `mode` is prompt or response, from `role`."""
MAX_GROUPS = 250
"""The most values of one field: an id, named by mistake, would make a group of every sample."""


def score(samples: Iterable[Sample], *, by: Sequence[str], rounds: int, seed: int) -> dict[str, Any]:
    """Return the report as plain values: `all`, `by` field and value, `categories`, `refusal`, `datasets`.

    Raises:
        Misconfigured: no sample has a gold severity, or a field has no or too many values.
    """
    everyone = Counts()
    known: set[str] = set()
    groups: dict[str, dict[str, Counts]] = {field: {} for field in by}
    for sample in samples:
        everyone.add(sample)
        known.update(sample.fields)
        for field in by:
            value = _value(sample, field)
            if value is not None:
                members = groups[field].get(value)
                if members is None:
                    if len(groups[field]) == MAX_GROUPS:
                        raise Misconfigured(f"{field}: has more than {MAX_GROUPS} values, too many to group by")
                    members = groups[field][value] = Counts()
                members.add(sample)
    if not everyone.total:
        raise Misconfigured("no line has gold.severity: there is nothing to score against")
    for field in by:
        if field not in BY and not groups[field]:
            raise Misconfigured(f"--by: no line has a value for {field!r} (fields: {', '.join(sorted(known))})")
    bootstrap = Bootstrap(rounds, seed)
    report: dict[str, Any] = {
        "all": figures_of(everyone, bootstrap),
        "by": {
            field: {value: figures_of(counts, bootstrap) for value, counts in sorted(values.items())}
            for field, values in groups.items()
            if values
        },
        "categories": {
            category: _detected(everyone.categories[category], bootstrap)
            for category in Category
            if everyone.categories[category].any()
        },
        "refusal": {**_detected(everyone.refusals, bootstrap), "unreadable": everyone.unreadable_refusals}
        if everyone.refusals.any()
        else None,
        "rounds": rounds,
        "seed": seed,
    }
    if "dataset" in report["by"]:
        report["datasets"] = published_average(report["by"]["dataset"])
    return report


def published_average(datasets: dict[str, Any]) -> dict[str, float] | None:
    """Return the mean F1 of the data sets with equal weights: strict, loose, and the better one of each.

    A data set without unsafe gold has no F1 and does not count.
    """
    pairs = [[figures[mode]["f1"] for mode in Mode] for figures in datasets.values()]
    values = [[one["value"] for one in pair] for pair in pairs if None not in pair]
    if not values:
        return None
    strict, loose = zip(*values, strict=True)
    best = [max(pair) for pair in zip(strict, loose, strict=True)]
    return {"strict": float(np.mean(strict)), "loose": float(np.mean(loose)), "best": float(np.mean(best))}


def _detected(counted: Counted, bootstrap: Bootstrap) -> dict[str, Any]:
    return asdict(detection(counted, bootstrap.draw(counted)))


def _value(sample: Sample, field: str) -> str | None:
    if field == "mode":
        return "response" if sample.fields.get("role") == Role.ASSISTANT else "prompt"
    value = sample.fields.get(field)
    return None if value is None else str(value)
