"""The number of micro-batches in flight follows the engine."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from workers.moderation.filling import filled
from workers.settings import Settings


def batch(monkeypatch: pytest.MonkeyPatch, wish: int | None, **environment: str) -> tuple[int, str]:
    """Return the micro-batches in flight for an environment, and the log."""
    for name, value in environment.items():
        monkeypatch.setenv(f"GUARDLINE_BATCH__{name}", value)
    with capture_logs() as logs:
        made = filled(Settings(), wish)
    return made.batch.in_flight, " ".join(entry["event"] for entry in logs)


def test_an_engine_without_a_wish_gets_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch(monkeypatch, None) == (4, "")


@pytest.mark.parametrize(("wish", "in_flight"), [(1, 4), (1_024, 4), (1_025, 5), (4_096, 16)])
def test_the_default_follows_what_the_engine_wishes(monkeypatch: pytest.MonkeyPatch, wish: int, in_flight: int) -> None:
    assert batch(monkeypatch, wish) == (in_flight, "")


def test_other_settings_of_the_batch_do_not_pin_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch(monkeypatch, 1_024, MAX_COUNT="64") == (16, "")


def test_a_set_value_stays_and_the_log_says_that_it_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    in_flight, said = batch(monkeypatch, 1_024, IN_FLIGHT="2")
    assert in_flight == 2
    assert "512 events at the engine, which needs 1024 prompts" in said
    assert "set it to 4" in said


def test_settings_that_fill_the_engine_are_not_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    assert batch(monkeypatch, 1_024, IN_FLIGHT="8") == (8, "")
