"""Writes the Grafana dashboard: its panels from panels.py, their descriptions from the catalogue of metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import count
from typing import Any

from infra.observability.panels import ROWS, Panel
from workers.telemetry import CATALOGUE

SELECTOR = 'job=~"$job",instance=~"$instance"'
"""Every query shows the chosen workers."""

WIDTH, HEIGHT, STAT_HEIGHT = 24, 8, 4
"""Of the grid, of a plot, and of a number."""

_SERIES = re.compile(r"\b((?:guardline|process)_[a-z_]+)\b(?:\{([^}]*)\})?(?=[^(]|$)")
_PART = re.compile(r"_(bucket|sum|count)$")
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def selecting(expression: str, selector: str = SELECTOR) -> str:
    """Add a selector to each series of an expression."""

    def add(found: re.Match[str]) -> str:
        return f"{found[1]}{{{','.join(filter(None, (found[2], selector)))}}}"

    return _SERIES.sub(add, expression)


def metrics_in(expression: str) -> set[str]:
    """Name the metrics of an expression. A histogram has three series, and one name."""
    histograms = {metric.name for metric in CATALOGUE if metric.kind == "histogram"}
    return {base if (base := _PART.sub("", name)) in histograms else name for name, _ in _SERIES.findall(expression)}


def rendered() -> str:
    """Return the dashboard as JSON."""
    document = {
        "uid": "guardline",
        "title": "Guardline",
        "description": "Made by `make generated` from infra/observability/panels.py.",
        "tags": ["guardline"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": list(_panels()),
    }
    return json.dumps(document, indent=1) + "\n"


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        _variable("job", "Job", "label_values(guardline_worker_state, job)"),
        _variable("instance", "Worker", 'label_values(guardline_worker_state{job=~"$job"}, instance)'),
    ]


def _variable(name: str, label: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panels() -> Iterator[dict[str, Any]]:
    ids, top = count(1), 0
    for title, panels in ROWS.items():
        yield {
            "id": next(ids),
            "type": "row",
            "title": title,
            "collapsed": False,
            "panels": [],
            "gridPos": _place(0, top, WIDTH, 1),
        }
        top, left = top + 1, 0
        height = STAT_HEIGHT if panels[0].colours else HEIGHT
        width = WIDTH // 6 if panels[0].colours else WIDTH // 3 if len(panels) % 4 else WIDTH // 4
        for panel in panels:
            if left + width > WIDTH:
                top, left = top + height, 0
            yield _panel(panel, next(ids), _place(left, top, width, height))
            left += width
        top += height


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    names = set().union(*(metrics_in(expression) for expression, _ in panel.queries))
    described = [f"`{metric.name}`: {metric.help}" for metric in CATALOGUE if metric.name in names]
    return {
        "id": number,
        "type": "stat" if panel.colours else "timeseries",
        "title": panel.title,
        "description": "\n\n".join(described),
        "datasource": _DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, **_colours(panel)}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "expr": selecting(expression),
                "legendFormat": legend,
            }
            for index, (expression, legend) in enumerate(panel.queries)
        ],
    }


def _colours(panel: Panel) -> dict[str, Any]:
    if not panel.colours:
        return {}
    steps = [{"value": value, "color": colour} for value, colour in panel.colours]
    return {"thresholds": {"mode": "absolute", "steps": steps}}
