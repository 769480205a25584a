"""The order in which items get their turn. Pure.

An item's turn comes at the latest at its deadline. The more urgent the item, the earlier its turn: a fully urgent item
has its turn at once. The order of two items never changes while they wait, so a heap can hold them, and no item
waits for ever behind more urgent ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

SEVERITY = {"Unsafe": 1.0, "Controversial": 0.5, "Safe": 0.0}
UNKNOWN_SEVERITY = 0.5
"""Of an event that the model could not judge."""

SEVERITY_WEIGHT, NEARNESS_WEIGHT, REACH_WEIGHT = 0.5, 0.25, 0.25
FULL_REACH = 6.0
"""The power of ten at which reach counts fully: a million."""


def urgency(assessment: Mapping[str, Any] | None, reach: object) -> float:
    """Give the urgency of an item, from 0 to 1.

    Half of it is the severity. A quarter says how near the model was to another severity: a person adds most where the
    model is least sure. A quarter is the reach, a number such as that of an author's followers, on a logarithmic scale.
    """
    severity = UNKNOWN_SEVERITY if assessment is None else SEVERITY.get(str(assessment["severity"]), UNKNOWN_SEVERITY)
    nearness = 1.0 if assessment is None else _nearness(assessment["scores"])
    return SEVERITY_WEIGHT * severity + NEARNESS_WEIGHT * nearness + REACH_WEIGHT * _reach(reach)


def turn_at(waiting_since_ms: int, sla_ms: int, urgent: float) -> int:
    """Give the time of an item's turn, in milliseconds since 1970-01-01 UTC. The earliest turn comes first."""
    return waiting_since_ms + int(sla_ms * (1 - urgent))


def _nearness(scores: Mapping[str, Any]) -> float:
    first, second, *_ = sorted((float(score) for score in scores.values()), reverse=True)
    return 1 - (first - second)


def _reach(reach: object) -> float:
    try:
        number = float(reach)  # type: ignore[arg-type]  # any JSON value
    except (TypeError, ValueError):
        return 0.0
    return min(1.0, math.log10(1 + number) / FULL_REACH) if math.isfinite(number) and number > 0 else 0.0
