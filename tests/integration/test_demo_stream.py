"""The demo of streams as `make demo-stream` runs it, without a terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(210)
def test_the_demo_of_streams_cuts_what_is_harmful_and_leaks_loses_and_doubles_nothing() -> None:
    run = subprocess.run(
        (sys.executable, "-m", "infra.demo_stream"),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert (result["leaked_tokens"], result["lost"], result["doubled"]) == (0, 0, 0)
    assert 0 < result["cuts"] < result["sessions"]
    assert "killing worker demo-one" in run.stdout
    assert "[cut; first text after" in run.stdout
    assert "[whole; first text after" in run.stdout
