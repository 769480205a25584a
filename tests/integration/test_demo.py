"""The demo as `make demo` runs it, without a terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.site import eventually

PROJECT = Path(__file__).resolve().parents[2]
DEMO = (sys.executable, "-m", "infra.demo")

pytestmark = pytest.mark.timeout(210)


def test_the_demo_loses_and_duplicates_nothing_and_ends_with_a_line_of_json() -> None:
    run = subprocess.run(DEMO, cwd=PROJECT, capture_output=True, text=True, timeout=180, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert (result["lost"], result["doubled"]) == (0, 0)
    assert result["verdicts"] + result["dead_letters"] == result["events"] > 800
    assert min(result["review_items"], result["dead_letters"], result["duplicates"]) > 0
    assert "killing worker demo-one" in run.stdout
    assert "the same text, before and after the switch" in run.stdout
    assert result["mapped"] == 5
    assert "Discord: block  'I will find you and kill you'" in run.stdout
    assert result["superseding"] == result["webhooks"] == 1
    assert "strikes; 'repeated harm' begins at 3" in run.stdout
    assert "a reviewer reads an item" in run.stdout
    assert "webhook received: verdict.superseded" in run.stdout


def test_a_killed_demo_leaves_no_process_behind(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(DEMO, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL) as demo:
        started = psutil.Process(demo.pid)
        eventually(lambda: len(list(tmp_path.glob("guardline-demo-*/worker-*.log"))) == 2, "two workers run", 60)
        left: list[psutil.Process] = []

        def all_run() -> bool:
            left[:] = started.children(recursive=True)
            return len(left) >= 5  # the supervisor, Kafka, Valkey and two workers

        eventually(all_run, "all processes run")
        demo.kill()
    gone = psutil.wait_procs(left, timeout=15)[1]
    assert not [process for process in gone if process.status() != psutil.STATUS_ZOMBIE]
