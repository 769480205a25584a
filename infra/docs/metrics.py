"""Writes the tables of docs/metrics.md from the catalogue of metrics and the list of alerts."""

from __future__ import annotations

from collections.abc import Iterable

from infra.observability.alerts import ALERTS, Alert
from infra.observability.dashboard import metrics_in
from workers.metric import Label, Metric
from workers.telemetry import CATALOGUE

METRICS = "<!-- metrics: `make generated` writes this table from workers/telemetry.py -->\n"
ALERTED = "<!-- alerts: `make generated` writes this table from infra/observability/alerts.py -->\n"
END = "<!-- end of the table -->\n"


def rendered(page: str) -> str:
    """Return the page with its tables written again: one row for each metric, and one for each alert."""
    metrics = [(_named(metric), _kind(metric), _meaning(metric), _reading(metric)) for metric in CATALOGUE]
    alerts = [(_linked(one), one.severity, one.summary) for one in ALERTS]
    page = replaced(page, METRICS, table(("metric", "kind, unit", "meaning", "a change says"), metrics))
    return replaced(page, ALERTED, table(("alert", "severity", "meaning"), alerts))


def replaced(page: str, begin: str, written: str) -> str:
    """Return the page with this text between the mark and the next `END`."""
    before, _, rest = page.partition(begin)
    return f"{before}{begin}{written}{END}{rest.partition(END)[2]}"


def _named(metric: Metric) -> str:
    labels = ",".join(label.name for label in metric.labels)
    return f"`{metric.name}{{{labels}}}`" if labels else f"`{metric.name}`"


def _kind(metric: Metric) -> str:
    return metric.kind if metric.kind == "state" else f"{metric.kind}, {metric.unit}"


def _meaning(metric: Metric) -> str:
    return " ".join([metric.meaning, *map(_values, metric.labels)])


def _reading(metric: Metric) -> str:
    alerts = [_linked(alert) for alert in ALERTS if metric.name in metrics_in(alert.expression)]
    return " ".join([metric.reading, *(f"Alert: {alert}." for alert in alerts)])


def _linked(alert: Alert) -> str:
    return f"[{alert.name}](runbooks/{alert.page}.md)"


def _values(label: Label) -> str:
    values = ", ".join(f"`{value}`" for value in label.values) or label.bounded_by
    return f"`{label.name}`: {values}."


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
