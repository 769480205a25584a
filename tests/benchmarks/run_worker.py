"""Runs the timed worker over what lies in a site's input topic."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import NamedTuple

from tests.site import Site


class Run(NamedTuple):
    """Records/s since the first poll, and since the first record; CPU microseconds a record."""

    per_s: float
    flow_per_s: float
    cpu_us: float


def run_worker(site: Site, count: int, *mode: str, threads: int | None = None, **changes: str) -> Run:
    """Run it as `timed_run` does, and check that each position has exactly one output."""
    found = timed_run(site, count, *mode, threads=threads, **changes)
    site.check()
    return found


def timed_run(site: Site, count: int, *mode: str, threads: int | None = None, **changes: str) -> Run:
    """Run it, with `threads` for the engine (all cores: None) and further settings."""
    environment = {**os.environ, **site.environment, **changes}
    del environment["GUARDLINE_GUARD__THREADS"]
    if threads is not None:
        environment["GUARDLINE_GUARD__THREADS"] = str(threads)
    run = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.timed_worker", str(count), *mode],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    clock = json.loads(run.stdout)
    return Run(count / clock["wall_s"], count / clock["flow_s"], clock["cpu_s"] / count * 1e6)
