"""The catalogue of metrics."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from prometheus_client import REGISTRY

from workers import telemetry
from workers.core.dead_letters import OUTPUT_TOO_LARGE
from workers.core.reasons import Reason
from workers.metric import Latencies, Metric
from workers.policy.document import DEFAULT_ID
from workers.policy.policy import default_strict
from workers.telemetry import CATALOGUE

ROOT = Path(__file__).parents[2]


def named(name: str) -> Metric:
    return next(metric for metric in CATALOGUE if metric.name == name)


def test_every_metric_has_a_unit_a_meaning_and_a_reading() -> None:
    for metric in CATALOGUE:
        assert metric.name.startswith("guardline_")
        assert metric.unit
        assert metric.meaning.endswith(".")
        assert metric.reading.endswith(".")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert ("seconds" in metric.name) == (metric.unit == "seconds")


def test_every_label_has_a_fixed_set_of_values_and_none_names_a_tenant() -> None:
    labels = [label for metric in CATALOGUE for label in metric.labels]
    assert {label.name for label in labels} == {
        "guardline_worker_state",
        "topic",
        "reason",
        "field",
        "decision",
        "policy",
        "result",
        "kind",
        "at",
        "circuit",
        "source",
        "group",
        "outcome",
        "due",
        "endpoint",
        "state",
        "route",
        "status",
        "limit",
    }
    assert [label for label in labels if not label.values and not label.bounded_by] == []


def test_every_metric_of_the_process_is_in_the_catalogue() -> None:
    served = {family.name for family in REGISTRY.collect() if family.name.startswith("guardline_")}
    assert served == {metric.name.removesuffix("_total") for metric in CATALOGUE}


def test_every_metric_is_used() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "workers").glob("*/**/*.py"))
    others = {"CATALOGUE", "ENDPOINT", "GROUP", "ROUTE", "SECONDS", "LATENCIES"}
    names = [name for name in vars(telemetry) if name.isupper() and name not in others]
    assert len(names) == len(CATALOGUE)
    assert [name for name in names if not re.search(rf"\btelemetry\.{name}\b", code)] == []


def test_the_values_of_labels_are_those_of_the_code() -> None:
    (reason,) = named("guardline_dead_letters_total").labels
    assert set(reason.values) == {*Reason, OUTPUT_TOO_LARGE}
    (policy,) = named("guardline_unknown_tenants_total").labels
    assert set(policy.values) == {DEFAULT_ID, default_strict().id}


def test_a_series_with_known_labels_exists_before_its_first_increase() -> None:
    """Otherwise Prometheus' `increase` does not see the first one."""
    for reason in Reason:
        assert REGISTRY.get_sample_value("guardline_dead_letters_total", {"reason": reason}) is not None


def test_latencies_count_many_values_at_once() -> None:
    latencies = Latencies("seconds", "A latency.", (1, 2.5))
    latencies.observe_all([0.5, 1, 3, 2])
    latencies.observe_all([])
    latencies.observe_all([1.5])
    (family,) = latencies.collect()
    found = {(sample.name, sample.labels.get("le")): sample.value for sample in family.samples}
    assert found == {
        ("seconds_bucket", "1.0"): 2,
        ("seconds_bucket", "2.5"): 4,
        ("seconds_bucket", "+Inf"): 5,
        ("seconds_count", None): 5,
        ("seconds_sum", None): 8.0,
    }


def test_a_worker_that_has_not_asked_redis_does_not_report_that_redis_is_down() -> None:
    """It may wait for Kafka, or be of a kind that uses no Redis: GuardlineRedisDown must not fire."""
    script = (
        "from prometheus_client import REGISTRY; import workers.telemetry; "
        "print(REGISTRY.get_sample_value('guardline_redis_up'))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "nan"
