"""The import borders of pyproject.toml hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_contracts_hold() -> None:
    script = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([script, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_command_starts_without_what_only_some_commands_need() -> None:
    heavy = ["ctranslate2", "confluent_kafka", "jinja2", "matplotlib", "numpy", "pyarrow", "redis", "torch"]
    program = f"import sys, workers.cli.app; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
