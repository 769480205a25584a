"""Writes the table of docs/metrics.md from the catalogue of metrics."""

from __future__ import annotations

from collections.abc import Iterable

from workers.metric import Label, Metric
from workers.telemetry import CATALOGUE

BEGIN = "<!-- metrics: `make generated` writes this table from workers/telemetry.py -->\n"
END = "<!-- end of the table -->\n"


def rendered(page: str) -> str:
    """Return the page with its table written again: one row for each metric."""
    before, _, rest = page.partition(BEGIN)
    rows = [(_named(metric), _kind(metric), _meaning(metric), metric.reading) for metric in CATALOGUE]
    table = _table(("metric", "kind, unit", "meaning", "a change says"), rows)
    return f"{before}{BEGIN}{table}{END}{rest.partition(END)[2]}"


def _named(metric: Metric) -> str:
    labels = ",".join(label.name for label in metric.labels)
    return f"`{metric.name}{{{labels}}}`" if labels else f"`{metric.name}`"


def _kind(metric: Metric) -> str:
    return metric.kind if metric.kind == "state" else f"{metric.kind}, {metric.unit}"


def _meaning(metric: Metric) -> str:
    return " ".join([metric.meaning, *map(_values, metric.labels)])


def _values(label: Label) -> str:
    values = ", ".join(f"`{value}`" for value in label.values) or label.bounded_by
    return f"`{label.name}`: {values}."


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
