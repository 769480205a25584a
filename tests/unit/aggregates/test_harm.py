"""A tenant's harm rate against its own normal."""

from __future__ import annotations

import random

import pytest

from tests.unit.aggregates.seen import MINUTE_MS, NOW_MS
from workers.aggregates.harm import deviations, tenant_signals
from workers.aggregates.rows import Key, Normal, Row
from workers.aggregates.windows import HARMFUL, VERDICTS, add
from workers.settings.aggregate_sections import HarmRate

KEY = Key("tenant", "acme", "")
BEGIN = NOW_MS // MINUTE_MS * MINUTE_MS


class Tenant:
    """A tenant whose verdicts come minute by minute, and how often its signal was raised and cleared."""

    def __init__(self, **changes: float) -> None:
        self.settings = HarmRate.model_validate(changes)
        self.row = Row()
        self.at_ms = BEGIN
        self.said: list[str] = []
        self.random = random.Random(5)

    def minute(self, verdicts: int, rate: float) -> None:
        harmful = sum(self.random.random() < rate for _ in range(verdicts))
        self.at_ms += MINUTE_MS
        add(self.row.minutes, self.at_ms // MINUTE_MS, {VERDICTS: verdicts, HARMFUL: harmful})
        for minute in [one for one in self.row.minutes if one < self.at_ms // MINUTE_MS - 59]:
            del self.row.minutes[minute]
        self.said += [one.state for one in tenant_signals(KEY, self.row, self.settings, self.at_ms)]


def test_the_deviation_is_that_of_a_binomial_count() -> None:
    """1 % of 10,000 are 100 with a deviation of 9.95, when the normal rate is known exactly."""
    known = Normal(1e9, 1e11, 0)
    assert deviations(100, 10_000, known) == pytest.approx(0, abs=1e-3)
    assert deviations(150, 10_000, known) == pytest.approx(50 / 9.95, rel=1e-3)


def test_the_deviation_is_smaller_when_normal_is_known_from_few_verdicts() -> None:
    assert deviations(60, 1_000, Normal(10, 1_000, 0)) < deviations(60, 1_000, Normal(1_000, 100_000, 0)) / 1.3


def test_a_tenant_without_any_harm_has_a_normal_above_zero() -> None:
    assert 0 < deviations(1, 1_000, Normal(0, 100_000, 0)) < 20
    assert deviations(0, 0, Normal(0, 0, 0)) == 0


def test_a_wave_is_raised_within_minutes_and_cleared_after_it() -> None:
    tenant = Tenant()
    for _ in range(60):
        tenant.minute(200, 0.02)
    assert tenant.said == []
    tenant.minute(200, 0.2)
    assert tenant.said == ["raised"]
    for _ in range(3):
        tenant.minute(200, 0.2)
    assert tenant.said == ["raised"], "once for each crossing"
    for _ in range(7):
        tenant.minute(200, 0.02)
    assert tenant.said == ["raised", "cleared"]


def test_more_traffic_of_the_same_kind_is_no_wave() -> None:
    tenant = Tenant()
    for _ in range(60):
        tenant.minute(100, 0.05)
    for _ in range(10):
        tenant.minute(2_000, 0.05)
    assert tenant.said == []


def test_two_days_of_normal_traffic_raise_nothing() -> None:
    """Figures for docs/aggregates.md: 2,880 minutes at 100 verdicts each, 2 % harmful."""
    tenant = Tenant()
    for _ in range(2_880):
        tenant.minute(100, 0.02)
    assert tenant.said == []


def test_nothing_is_raised_before_normal_is_known_or_for_a_few_verdicts() -> None:
    new = Tenant()
    for _ in range(9):
        new.minute(100, 0.5)
    assert new.said == []
    small = Tenant()
    for _ in range(300):
        small.minute(10, 0.0)
    for _ in range(3):
        small.minute(6, 1.0)
    assert small.said == [], "18 harmful verdicts are below min_harmful"
    small.minute(6, 1.0)
    assert small.said == ["raised"]


def test_a_level_that_stays_becomes_normal() -> None:
    tenant = Tenant(half_life_hours=1)
    for _ in range(120):
        tenant.minute(200, 0.02)
    for _ in range(600):
        tenant.minute(200, 0.06)
    assert tenant.said == ["raised", "cleared"]


def test_a_silent_minute_lets_normal_fade_and_a_late_verdict_is_no_error() -> None:
    tenant = Tenant(half_life_hours=1)
    for _ in range(30):
        tenant.minute(200, 0.02)
    assert tenant.row.normal is not None
    before = tenant.row.normal.verdicts
    tenant.at_ms += 60 * MINUTE_MS
    tenant_signals(KEY, tenant.row, tenant.settings, tenant.at_ms)
    assert tenant.row.normal.verdicts == pytest.approx((before + 5 * 200) / 2, rel=0.1)
    tenant_signals(KEY, tenant.row, tenant.settings, tenant.at_ms - 90 * MINUTE_MS)
    assert tenant.row.normal.verdicts == pytest.approx((before + 5 * 200) / 2, rel=0.1)
