"""A real model server on this CPU, started once for a run of tests and ended with it."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

START_S = 500

Command = Sequence[str | Path]


def serve_until_the_end(command: Callable[[int], Command], well_path: str, **environment: str) -> str:
    """Run the command for a port, and give the URL of the server once `well_path` answers with success.

    It ends with this process, however that ends, and so do the processes that it makes.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.TemporaryDirectory(prefix="guardline-serve-")
    atexit.register(folder.cleanup)
    log = Path(folder.name) / "log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("tied.py"), sys.executable, *command(port)],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            start_new_session=True,
            env={**os.environ, **environment},
        )
    atexit.register(_end, server)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_S
    while not _is_up(url + well_path):
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"not up after {START_S} s: {log.read_text()}"
        time.sleep(0.5)
    return url


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _end(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None
    server.stdin.close()
    server.wait()
