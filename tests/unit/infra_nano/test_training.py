"""Training goes on after a kill; these tests need torch, so `make test-nano` runs them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("sklearn")

DEADLINE_S = 300


def start(state: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.unit.infra_nano.tiny_training", str(state)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def digest(training: subprocess.Popen[str]) -> str:
    printed, _ = training.communicate(timeout=DEADLINE_S)
    assert training.returncode == 0
    return printed.splitlines()[-1]


def steps_done(state: Path) -> int:
    import torch

    return int(torch.load(state, weights_only=True)["at"][0]) if state.exists() else 0


@pytest.mark.timeout(3 * DEADLINE_S)
@pytest.mark.parametrize("part", [range(3, 10), range(12, 30)], ids=["bag", "whole"])
def test_a_killed_and_resumed_training_ends_with_the_same_weights(part: range, tmp_path: Path) -> None:
    state = tmp_path / "killed.pt"
    killed = start(state)
    deadline = time.monotonic() + DEADLINE_S
    while steps_done(state) < part.start and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert steps_done(state) in part
    assert digest(start(state)) == digest(start(tmp_path / "whole.pt"))


@pytest.mark.timeout(DEADLINE_S)
def test_a_state_of_other_settings_is_refused(tmp_path: Path) -> None:
    from dataclasses import replace

    from infra.nano.train import train
    from tests.unit.infra_nano.tiny_training import RECIPE, texts

    short, state = replace(RECIPE, stages=(1, 2, 3)), tmp_path / "state.pt"
    train(texts(), short, tmp_path / "cache", state)
    with pytest.raises(SystemExit, match="other texts, code or settings"):
        train(texts(), replace(short, stages=(1, 2, 5)), tmp_path / "cache", state)
    with pytest.raises(SystemExit, match="other texts, code or settings"):
        train(replace(texts(), corpus=texts().corpus[:1]), short, tmp_path / "cache", state)


def test_a_change_of_the_code_is_another_training(tmp_path: Path) -> None:
    from infra.nano.train import digest_of
    from tests.unit.infra_nano.tiny_training import RECIPE, texts

    digests = []
    for number in (1, 2, 2):
        (tmp_path / "fit.py").write_text(f"RATE = {number}")
        digests.append(digest_of(RECIPE, texts(), tmp_path))
    assert digests[0] != digests[1] == digests[2] != digest_of(RECIPE, texts())


def test_stages_that_do_not_rise_are_refused() -> None:
    from infra.nano.fit import Plan

    with pytest.raises(SystemExit, match=r"end after \(20, 20, 30\) steps"):
        Plan(stages=(20, 20, 30), rate=1e-3, save_every_s=0)


def test_a_model_without_severities_is_not_measured() -> None:
    import torch

    from infra.nano.measure import score_torch
    from infra.nano.network import new_model

    torch.manual_seed(1)
    model = new_model(50, 64, 1)
    assert score_torch(model, [[1, 2, 3], [4, 5]], list(range(50))).shape == (2, 50)
    with pytest.raises(SystemExit, match="has not learnt the answer's format"):
        score_torch(model, [[1, 2, 3], [4, 5]], [7, 8, 9])
