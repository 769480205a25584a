"""The alerts and the dashboard. `make test-alerts` runs the rules themselves, in Prometheus."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.observability import alerts, dashboard
from infra.observability.alerts import ALERTS, GROUPS, Alert
from infra.observability.dashboard import metrics_in, selecting
from infra.observability.panels import ROWS
from workers.telemetry import CATALOGUE

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
OF_EVERY_PROCESS = {"process_start_time_seconds", "process_cpu_seconds_total", "process_resident_memory_bytes"}
QUERIES = [expression for panels in ROWS.values() for panel in panels for expression, _ in panel.queries]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_every_alert_has_a_page_that_says_what_to_do(alert: Alert) -> None:
    page = (RUNBOOKS / f"{alert.page}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {alert.name}\n\n**Severity:** {alert.severity}.\n")
    headings = [line for line in page.splitlines() if line.startswith("## ")]
    assert headings == ["## Meaning", "## Impact", "## Diagnosis", "## What to do"]


def test_every_page_belongs_to_an_alert() -> None:
    assert {path.stem for path in RUNBOOKS.iterdir()} == {alert.page for alert in ALERTS}


def test_every_alert_is_tested_in_a_case_that_fires_and_in_one_that_does_not() -> None:
    cases = [case["name"] for case in yaml.safe_load((ROOT / "tests/alerts/rules.yaml").read_text())["tests"]]
    expected = [f"{alert.name} {what} " for alert in ALERTS for what in ("fires", "is quiet")]
    assert [begin for begin in expected if not any(case.startswith(begin) for case in cases)] == []
    assert len(cases) == len(expected)


def test_alerts_and_panels_use_metrics_that_exist() -> None:
    used = set().union(*(metrics_in(expression) for expression in [*QUERIES, *(alert.expression for alert in ALERTS)]))
    assert used - OF_EVERY_PROCESS - {metric.name for metric in CATALOGUE} == set()


@pytest.mark.parametrize("group", yaml.safe_load(alerts.rules())["groups"], ids=lambda group: group["name"])
def test_every_selector_of_a_group_has_the_job_that_the_chart_replaces(group: dict[str, Any]) -> None:
    assert len(group["rules"]) == len(GROUPS[group["name"]])
    for rule in group["rules"]:
        series = re.findall(r"\b(?:guardline|process)_[a-z_]+\{([^}]*)\}", rule["expr"])
        assert series
        assert len(series) == len(re.findall(r"\b(?:guardline|process)_[a-z_]+(?![a-z_=])", rule["expr"]))
        assert all(f'job="{group["name"]}"' in selector for selector in series)


def test_every_metric_is_on_the_dashboard() -> None:
    shown = set().union(*map(metrics_in, QUERIES))
    assert [metric.name for metric in CATALOGUE if metric.name not in shown] == []


@pytest.mark.parametrize(
    ("expression", "selected", "names"),
    [
        ("guardline_redis_up", 'guardline_redis_up{job=~"$job",instance=~"$instance"}', {"guardline_redis_up"}),
        (
            'sum by (le) (rate(guardline_batch_events_bucket{a="b"}[1m])) / sum(guardline_policies)',
            (
                'sum by (le) (rate(guardline_batch_events_bucket{a="b",job=~"$job",instance=~"$instance"}[1m])) / '
                'sum(guardline_policies{job=~"$job",instance=~"$instance"})'
            ),
            {"guardline_batch_events", "guardline_policies"},
        ),
    ],
)
def test_a_query_selects_the_workers_of_the_dashboard(expression: str, selected: str, names: set[str]) -> None:
    assert selecting(expression) == selected
    assert metrics_in(expression) == names


def test_no_panel_covers_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(dashboard.rendered())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells
        assert place["x"] + place["w"] <= dashboard.WIDTH
        taken |= cells
