"""The processes of the demo: they end with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

from infra.devstack import children
from workers.errors import Unavailable

START_S = 60
GUARDLINE = str(Path(sys.executable).with_name("guardline"))


class Processes:
    """Starts `guardline gateway` and `guardline worker streams`, and ends them at the end of its block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all of them."""
        for process in self._running.values():
            process.kill()
            process.wait()

    def gateway(self, upstream: str) -> str:
        """Start the gateway before a model server; return its address when it serves."""
        os.environ |= {
            "GUARDLINE_GATEWAY__UPSTREAM__URL": upstream,
            "GUARDLINE_GATEWAY__OPEN": "demo",
            "GUARDLINE_GATEWAY__PORT": "0",
        }
        process = self._spawn("gateway", [GUARDLINE, "gateway"])
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and process.poll() is None:
            for line in self._log("gateway").read_text(encoding="utf-8").splitlines():
                if "serving" in line and "gateway" in line:
                    return f"http://127.0.0.1:{json.loads(line)['port']}"
            time.sleep(0.05)
        raise Unavailable(f"the gateway did not start: {self._end_of('gateway')}")

    def worker(self, name: str) -> subprocess.Popen[bytes]:
        """Start a streams worker."""
        return self._spawn(name, [GUARDLINE, "worker", "streams", "--id", f"demo-{name}"])

    def check(self, allowed: Collection[str] = ()) -> None:
        """See that all run, besides those that are `allowed` to have ended.

        Raises:
            Unavailable: one has ended by itself.
        """
        for name, process in self._running.items():
            if name not in allowed and process.poll() is not None:
                raise Unavailable(f"{name} ended by itself: {self._end_of(name)}")

    def _spawn(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        self._running[name] = children.spawn(command, self._log(name))
        return self._running[name]

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _end_of(self, name: str) -> str:
        return self._log(name).read_text(encoding="utf-8")[-800:]
