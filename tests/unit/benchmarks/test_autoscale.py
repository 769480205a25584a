"""The benchmark computes what the chart renders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.benchmarks.autoscale import DOWN, MAXIMUM, SPEED, UP, UP_BY_LAG
from tests.benchmarks.keda import Policy, Rules
from tests.benchmarks.triggers import COMMITTED, DEADLINE
from tests.unit.helm.rendered import example, one, render


def scaled_object(**changes: object) -> dict[str, Any]:
    scaling = {
        "enabled": True,
        "maxReplicas": MAXIMUM,
        "scaleDownEverySeconds": 60,
        "kafka": {"enabled": True},
        "prometheus": {"enabled": True, "serverAddress": "http://prometheus:9090", "recordsPerWorker": 80},
        **changes,
    }
    documents = render(example("cpu", workerDefaults={"autoscaling": scaling}))
    return dict(one(documents, "ScaledObject")["spec"])


def behavior_of(spec: dict[str, Any], direction: str) -> Rules:
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"][direction]
    policies = (Policy(one["type"], one["value"], one["periodSeconds"] / SPEED) for one in behavior["policies"])
    return Rules(behavior["stabilizationWindowSeconds"] / SPEED, tuple(sorted(policies)))


def in_order(rules: Rules) -> Rules:
    return replace(rules, policies=tuple(sorted(rules.policies)))


def test_the_autoscaler_and_the_triggers_of_the_benchmark_are_those_of_the_chart() -> None:
    spec = scaled_object()
    assert behavior_of(spec, "scaleDown") == in_order(DOWN)
    assert behavior_of(spec, "scaleUp") == in_order(UP_BY_LAG)
    assert behavior_of(scaled_object(scaleUpAfterSeconds=0), "scaleUp") == in_order(UP)
    lag, deadline, rate = spec["triggers"]
    assert (lag["type"], lag["metadata"]["offsetResetPolicy"]) == ("kafka", "earliest")
    assert "topic" not in lag["metadata"]
    assert (deadline["metricType"], rate["metricType"]) == ("Value", "AverageValue")
    assert f"min(max_over_time({DEADLINE}{{" in deadline["metadata"]["query"]
    assert f"rate({COMMITTED}" in rate["metadata"]["query"]
