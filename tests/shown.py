"""The metrics of this process, as /metrics shows them."""

from __future__ import annotations

from prometheus_client import REGISTRY


def shown(name: str, **labels: str) -> float:
    """Return the value of a metric that exists."""
    value = REGISTRY.get_sample_value(name, labels)
    assert value is not None, f"{name} {labels} does not exist"
    return value
