"""Sees that vLLM's processes really run our plugin.

Nothing else tells: vLLM goes on without a word when a plugin cannot be loaded, and would leave its processes with the
GPU after a crash of the worker. A folder named `workers` that is found before the installed package does that.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import workers
from workers.engines.vllm_child import REPORTS_VARIABLE
from workers.errors import Misconfigured

NAMES = ("VLLM::", "EngineCore")
"""How vLLM's processes are titled; the helpers that Python keeps for them are not."""


class Reports:
    """A folder into which each of vLLM's processes puts a file named by its process id, while they start."""

    def __enter__(self) -> Reports:
        self._folder = tempfile.TemporaryDirectory(prefix="guardline-vllm-")
        os.environ[REPORTS_VARIABLE] = self._folder.name
        self._before = set(_titles())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        os.environ.pop(REPORTS_VARIABLE, None)
        self._folder.cleanup()

    def check(self) -> None:
        """See that every process of vLLM that was started meanwhile has reported in.

        Raises:
            Misconfigured: one has not, and this is probably why.
        """
        known = self._before | {int(name) for name in os.listdir(self._folder.name)}
        silent = [pid for pid, title in _titles().items() if title.startswith(NAMES) and pid not in known]
        if silent:
            raise Misconfigured(
                f"guard.engine: vLLM's processes {', '.join(map(str, silent))} do not run guardline's plugin, and "
                f"nothing would end them after a crash of the worker{hint()}"
            )


def _titles() -> dict[int, str]:
    """Give the processes below this one, and what they are called."""
    import psutil  # vLLM brings it.

    found = {}
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found[child.pid] = " ".join(child.cmdline())
    return found


def shadow() -> Path | None:
    """Find what another process may import in this package's place."""
    own = Path(workers.__file__).resolve().parent
    for entry in [os.getcwd(), *os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path]:
        for found in (Path(entry or ".", "workers"), Path(entry or ".", "workers.py")):
            if found.exists() and found.resolve() != own:
                return found.resolve()
    return None


def hint() -> str:
    """Say what may be wrong with what vLLM's processes import; empty where nothing is."""
    found = shadow()
    return f"; they may import {found} as 'workers': start the worker in another folder, or rename it" if found else ""
