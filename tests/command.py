"""Runs the command line as a person does: as a process, until it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

GUARDLINE = Path(sys.executable).with_name("guardline")


def guardline(
    *arguments: str | Path,
    code: int = 0,
    timeout_s: float = 100,
    environment: Mapping[str, str] | None = None,
    program: Sequence[str | Path] = (GUARDLINE,),
) -> subprocess.CompletedProcess[str]:
    """Run it; check its exit code and that it prints no traceback. `program` replaces it, to run it with a fault."""
    with inheriting():
        run = subprocess.run(
            [*program, *arguments],
            env={**os.environ, "GUARDLINE_GUARD__THREADS": "1", **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    assert run.returncode == code, run.stderr
    assert "Traceback" not in run.stderr
    return run


@contextmanager
def inheriting(ignored: Collection[signal.Signals] = ()) -> Iterator[None]:
    """Processes that are started in the block inherit exactly these signals as ignored.

    Otherwise they inherit the state of the test run: SIGINT is ignored in a background job of a shell, and SIGHUP under
    `nohup`. In the main thread only.
    """
    numbers = (signal.SIGINT, signal.SIGHUP)
    before = {
        number: signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL) for number in numbers
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
