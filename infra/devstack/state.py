"""The state of the stack that runs on a data folder: a lock that it holds while it runs, and a file with its addresses.

The lock decides whether a stack runs, because the kernel releases it when its holder ends. The file only says which
one.
"""

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from infra.devstack.errors import DevstackError


@dataclass(frozen=True, slots=True)
class State:
    """A running stack: addresses and processes. `create_time` tells the supervisor from a later process of that id."""

    kafka: str
    redis: str
    kafka_pid: int
    redis_pid: int
    supervisor_pid: int
    create_time: float


def lock(data: Path) -> IO[str] | None:
    """Take the lock of a data folder until the returned file is closed; None if another process holds it."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        file = (data / "lock").open("w")
    except OSError as error:
        raise DevstackError(f"cannot use the data folder {data}: {error.strerror or error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def is_running(data: Path) -> bool:
    """Whether some process holds the lock of the data folder."""
    if not (data / "lock").exists():
        return False
    file = lock(data)
    if file is None:
        return True
    file.close()
    return False


def read(data: Path) -> State | None:
    """The last written state, or None if there is none."""
    try:
        return State(**json.loads((data / "state.json").read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def write(data: Path, state: State) -> None:
    """Replace the state in one step."""
    part = data / f".state.{os.getpid()}.part"
    part.write_text(json.dumps(asdict(state)), encoding="utf-8")
    part.replace(data / "state.json")


def ports_of_last_run(data: Path) -> list[int]:
    """The ports of Kafka, its controller and Valkey in the last run on this folder; empty if there was none."""
    try:
        ports = json.loads((data / "ports.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []  # The first use of the folder reports why the file cannot be read.
    return ports if isinstance(ports, list) and all(isinstance(port, int) for port in ports) else []


def keep_ports(data: Path, ports: list[int]) -> None:
    """Save the ports for the next run, so that exported addresses stay valid."""
    (data / "ports.json").write_text(json.dumps(ports), encoding="utf-8")


def clear(data: Path) -> None:
    """Remove the state: no stack runs."""
    (data / "state.json").unlink(missing_ok=True)


def already_running_sentence(data: Path) -> str:
    """The error for a second stack on the same data folder."""
    state = read(data)
    where = f"Kafka at {state.kafka}, Valkey at {state.redis}" if state else "it is starting or stopping"
    return f"a stack is already running on {data}: {where}. Use it, stop it, or name another folder with --data."
