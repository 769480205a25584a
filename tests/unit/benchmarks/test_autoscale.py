"""The benchmark computes what the chart renders."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.autoscale import DOWN, MAXIMUM, SPEED, UP
from tests.benchmarks.keda import Policy, Rules
from tests.benchmarks.triggers import COMMITTED, DEADLINE
from tests.unit.helm.rendered import example, one, render


def rules_of(behavior: dict[str, Any]) -> Rules:
    policies = (Policy(one["type"], one["value"], one["periodSeconds"] / SPEED) for one in behavior["policies"])
    return Rules(behavior["stabilizationWindowSeconds"] / SPEED, tuple(policies))


def test_the_autoscaler_and_the_triggers_of_the_benchmark_are_those_of_the_chart() -> None:
    scaling = {
        "enabled": True,
        "maxReplicas": MAXIMUM,
        "scaleDownEverySeconds": 60,
        "kafka": {"enabled": True},
        "prometheus": {"enabled": True, "serverAddress": "http://prometheus:9090", "recordsPerWorker": 80},
    }
    documents = render(example("cpu", workerDefaults={"autoscaling": scaling}))
    spec = one(documents, "ScaledObject")["spec"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    down, up = rules_of(behavior["scaleDown"]), rules_of(behavior["scaleUp"])
    assert (down.stabilization_s, set(down.policies)) == (DOWN.stabilization_s, set(DOWN.policies))
    assert (up.stabilization_s, set(up.policies)) == (UP.stabilization_s, set(UP.policies))
    lag, deadline, rate = spec["triggers"]
    assert (lag["type"], lag["metadata"]["offsetResetPolicy"]) == ("kafka", "earliest")
    assert "topic" not in lag["metadata"]
    assert (deadline["metricType"], rate["metricType"]) == ("Value", "AverageValue")
    assert DEADLINE in deadline["metadata"]["query"]
    assert f"rate({COMMITTED}" in rate["metadata"]["query"]
