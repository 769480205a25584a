"""Temperatures beside a checkpoint."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from tests.answers import answered
from tests.clear import UNSAFE
from workers.errors import Misconfigured
from workers.guard.calibration import FILE, Calibration, read_calibration
from workers.guard.guard import Guard, Request
from workers.guard.load import checkpoint_folder, load_guard
from workers.settings import Guard as GuardSettings

FOLDER = checkpoint_folder("guard-nano")
REQUESTS = [
    Request(UNSAFE),
    Request("Sure, here is how you do it.", "assistant", (("user", "How do I steal a car?"),)),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "checkpoint"))


async def assessed(folder: Path) -> tuple[Guard, list[dict[str, object]]]:
    guard = load_guard(GuardSettings(threads=1, model=str(folder)))
    await guard.start()
    assessments = answered(await guard.assess(REQUESTS))
    await guard.close()
    return guard, assessments


async def test_log_probabilities_are_divided_by_the_temperatures(folder: Path) -> None:
    guard, plain = await assessed(folder)
    temperatures = {"severity": 2.0, "categories": 3.0, "refusal": 1.5, "fitted_on": "2,000 texts"}
    (folder / FILE).write_text(json.dumps(temperatures))
    calibrated_guard, calibrated = await assessed(folder)
    for before, after in zip(plain, calibrated, strict=True):
        assert after["severity"] == before["severity"]
        assert after["refusal"] == before["refusal"]
        for name, temperature in (("scores", 2.0), ("category_scores", 3.0)):
            one, other = before[name], after[name]
            assert isinstance(one, dict)
            assert isinstance(other, dict)
            # The ratio of two shares is the exponential of their log-probabilities' difference.
            pairs = [(a, b) for a in one for b in one if a in other and b in other and min(one[a], one[b]) > 0.02]
            assert pairs
            for a, b in pairs:
                expected = math.log(one[a] / one[b]) / temperature
                assert math.log(other[a] / other[b]) == pytest.approx(expected, abs=0.02)
    assert calibrated_guard.fingerprint != guard.fingerprint
    assert calibrated_guard.model["revision"] != guard.model["revision"]


def test_without_a_file_nothing_is_changed(tmp_path: Path) -> None:
    assert read_calibration(tmp_path) == Calibration(severity=1, categories=1, refusal=1)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"severity": 0}', '{"severity": -1}', '{"refusal": "warm"}', '{"severity": 1e999}']
)
def test_an_invalid_calibration_file_is_an_error_with_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(Misconfigured, match=rf"guard\.model: .*{FILE} holds no temperatures above 0"):
        read_calibration(tmp_path)
