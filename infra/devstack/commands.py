"""Implements `guardline devstack`: a background stack that outlives the command, one for each data folder."""

import shlex
from pathlib import Path

import psutil

from infra.devstack import state
from infra.devstack.errors import DevstackError
from infra.devstack.folders import default_data_folder
from infra.devstack.stack import Addresses, Stack
from infra.devstack.state import State

STOP_TIMEOUT_S = 30.0


def up(data: Path | None = None) -> Addresses:
    """Start a stack in the background, and return when both servers answer. Raises DevstackError."""
    with Stack() as stack:
        addresses = stack.start(folder_of(data))
        stack.detach()
    return addresses


def ports_of_last_run(data: Path | None = None) -> list[int]:
    """The ports of the last run on `data`; empty if there was none."""
    return state.ports_of_last_run(folder_of(data))


def status(data: Path | None = None) -> Addresses:
    """The addresses of the stack that runs on `data`. Raises DevstackError when none does."""
    now = _running(folder_of(data))
    return Addresses(now.kafka, now.redis)


def down(data: Path | None = None) -> None:
    """End the stack that runs on `data`, and return when it has ended; its data stays. Raises DevstackError."""
    folder = folder_of(data)
    now = _running(folder)
    try:
        supervisor = psutil.Process(now.supervisor_pid)
        # The system reuses process ids: never end another process with the same id.
        if supervisor.create_time() == now.create_time:
            supervisor.terminate()
            supervisor.wait(STOP_TIMEOUT_S)
    except psutil.NoSuchProcess:
        return
    except psutil.TimeoutExpired:
        raise DevstackError(
            f"the stack on {folder} did not stop within {STOP_TIMEOUT_S:.0f} s; see the logs there."
        ) from None


def folder_of(data: Path | None) -> Path:
    """The data folder: `data`, or the default one."""
    return (data or default_data_folder()).expanduser().resolve()


def option(data: Path | None) -> str:
    """The flag that names the data folder to the other commands, after a space; empty for the default folder."""
    folder = folder_of(data)
    return "" if folder == default_data_folder() else f" --data {shlex.quote(str(folder))}"


def _running(folder: Path) -> State:
    now = state.read(folder) if state.is_running(folder) else None
    if now is None:
        raise DevstackError(f"no stack is running on {folder}. Start one with: guardline devstack up{option(folder)}")
    return now
