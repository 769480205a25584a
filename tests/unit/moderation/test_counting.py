"""What the verdict on an event counts."""

from __future__ import annotations

from workers import telemetry
from workers.moderation.counting import counters


def test_a_verdict_counts_its_decision_and_all_that_applies_to_it() -> None:
    assert counters("allow", False, False, False, None, ()) == (telemetry.DECISIONS.labels("allow"),)
    assert counters("block", True, True, True, "default", ("language", "headers"), "detector") == (
        telemetry.DECISIONS.labels("block"),
        telemetry.DUPLICATES,
        telemetry.REUSED,
        telemetry.UNAVAILABLE,
        telemetry.UNKNOWN_TENANTS.labels("default"),
        telemetry.LANGUAGES.labels("detector"),
        telemetry.IGNORED_FIELDS.labels("language"),
        telemetry.IGNORED_FIELDS.labels("headers"),
    )
