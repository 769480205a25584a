"""Checks that vLLM's processes really run our plugin.

vLLM itself does not report a plugin that cannot be loaded. Without the plugin, its processes would keep the GPU after a
crash of the worker. This happens when Python finds a folder named `workers` before the installed package.
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
"""The titles of vLLM's processes. The helper processes of Python have other titles."""


class Reports:
    """A folder in which each of vLLM's processes creates a file named by its process id, during the start.

    `section` of the settings is named in errors.
    """

    def __init__(self, section: str = "guard") -> None:
        self._section = section

    def __enter__(self) -> Reports:
        self._folder = tempfile.TemporaryDirectory(prefix="guardline-vllm-")
        os.environ[REPORTS_VARIABLE] = self._folder.name
        self._before = set(_titles())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        os.environ.pop(REPORTS_VARIABLE, None)
        self._folder.cleanup()

    def check(self) -> None:
        """Check that every vLLM process that was started since `__enter__` has reported.

        Raises:
            Misconfigured: one has not; the sentence names the probable cause.
        """
        known = self._before | {int(name) for name in os.listdir(self._folder.name)}
        silent = [pid for pid, title in _titles().items() if title.startswith(NAMES) and pid not in known]
        if silent:
            raise Misconfigured(
                f"{self._section}.engine: vLLM's processes {', '.join(map(str, silent))} do not run guardline's "
                f"plugin, and nothing would end them after a crash of the worker{hint()}"
            )


def _titles() -> dict[int, str]:
    """Return the child processes by id, with their titles."""
    import psutil  # A dependency of vLLM.

    found = {}
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            found[child.pid] = " ".join(child.cmdline())
    return found


def shadow() -> Path | None:
    """Find a folder or file that another process may import instead of this package."""
    own = Path(workers.__file__).resolve().parent
    for entry in [os.getcwd(), *os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path]:
        for found in (Path(entry or ".", "workers"), Path(entry or ".", "workers.py")):
            if found.exists() and found.resolve() != own:
                return found.resolve()
    return None


def hint() -> str:
    """Return a hint about a folder that shadows this package; empty if there is none."""
    found = shadow()
    return f"; they may import {found} as 'workers': start the worker in another folder, or rename it" if found else ""
