"""A gateway with its own Valkey, as a process or as an application in the test's event loop."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infra.devstack import children, valkey
from infra.devstack.kafka import free_ports
from tests.command import GUARDLINE, inheriting
from tests.site import Process, eventually


@contextmanager
def running_valkey() -> Iterator[str]:
    """Run a Valkey, and yield its URL."""
    with tempfile.TemporaryDirectory(prefix="guardline-test-") as folder:
        (port,) = free_ports(1)
        process = valkey.start(Path(folder), port)
        try:
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            children.stop(process, at_once=True)


class Door:
    """A gateway with three clients: `shop` of the tenant acme, `mild` of mild, `other` with two requests a minute."""

    def __init__(self, folder: Path, redis: str) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[bytes]] = []
        self.keys = {name: secrets.token_hex(32) for name in ("shop", "other", "mild")}
        self.second_key = secrets.token_hex(32)
        (folder / "shop").write_text(f"{self.keys['shop']}\n{self.second_key}\n")
        for name in ("other", "mild"):
            (folder / name).write_text(self.keys[name])
        keys: list[dict[str, Any]] = [
            {"name": "shop", "tenant": "acme", "file": str(folder / "shop")},
            {"name": "other", "tenant": "umbrella", "file": str(folder / "other"), "requests_per_minute": 2},
            {"name": "mild", "tenant": "mild", "file": str(folder / "mild")},
        ]
        self.environment = {
            "GUARDLINE_REDIS__URL": redis,
            "GUARDLINE_GATEWAY__KEYS": json.dumps(keys),
            "GUARDLINE_GATEWAY__PORT": "0",
            "GUARDLINE_HTTP__PORT": "0",
            "GUARDLINE_GUARD__THREADS": "1",
            "GUARDLINE_DEDUP__SECRET": "secret",
        }

    def start(self, *program: str, **changes: str) -> Process:
        """Start the gateway and wait until it serves; `program` replaces the command."""
        process = self.start_only(*program, **changes)
        eventually(
            lambda: "serving the gateway" in process.text or process.popen.poll() is not None, "the gateway serves"
        )
        assert process.popen.poll() is None, process.text
        return process

    def start_only(self, *program: str, **changes: str) -> Process:
        """Start the gateway."""
        log = self.folder / f"gateway-{secrets.token_hex(4)}.log"
        with log.open("wb") as out, inheriting():
            popen = subprocess.Popen(
                program or (GUARDLINE, "gateway"),
                env={**os.environ, **self.environment, **changes},
                stdout=out,
                stderr=out,
            )
        self.started.append(popen)
        return Process(popen, log)

    def close(self) -> None:
        """End the processes that a failed test has left."""
        for popen in self.started:
            if popen.poll() is None:
                popen.kill()
                popen.wait()


def port_of(process: Process) -> int:
    """Give the port of the API."""
    (line,) = [line for line in process.text.splitlines() if "serving the gateway" in line]
    return int(json.loads(line)["port"])
