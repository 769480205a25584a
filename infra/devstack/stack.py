"""One Kafka and one Valkey as an object: started with `running()`, ended with the process that started them.

Guarantee: neither server outlives the process that owns the Stack, even if that process is killed with SIGKILL.
"""

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.devstack import jars, state
from infra.devstack.errors import DevstackError
from infra.devstack.folders import default_data_folder
from infra.devstack.state import State

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
PROJECT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where clients connect: a Kafka bootstrap address `host:port`, and a `redis://` URL."""

    kafka: str
    redis: str


class Stack:
    """The servers of one data folder. Several stacks can run side by side, each on its own folder."""

    def __init__(self) -> None:
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._state: State | None = None

    def start(self, data: Path | None = None, *, throw_away: bool = False) -> Addresses:
        """Start both servers on `data`, and return when both answer. May block for seconds, or for the first download.

        `throw_away` says that the data will not be read again, so stopping need not save it. Raises DevstackError with
        a sentence.
        """
        if self._supervisor is not None:
            raise DevstackError(f"this stack is already running: Kafka at {self.kafka}, Valkey at {self.redis}.")
        data = (data or default_data_folder()).expanduser().resolve()
        if state.is_running(data):
            raise DevstackError(state.already_running_sentence(data))
        class_path = os.pathsep.join(map(str, jars.ensure()))
        self._supervisor = _spawn_supervisor(data, throw_away)
        try:
            self._tell(class_path)
            return self._answer(data)
        except BaseException:
            # The supervisor does not read its standard input before both servers answer.
            self._supervisor.terminate()
            self.stop()
            raise

    def stop(self) -> None:
        """End both servers and wait until they have ended. Does nothing if they do not run."""
        if self._supervisor is None:
            return
        supervisor, self._supervisor, self._state = self._supervisor, None, None
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        with suppress(BrokenPipeError):
            supervisor.stdin.close()
        try:
            supervisor.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            supervisor.kill()
            supervisor.wait()
        supervisor.stdout.close()

    def detach(self) -> None:
        """Let the servers outlive this process: `infra.devstack.commands.down` ends them."""
        self._tell("detach")
        supervisor, self._supervisor = self._running(), None
        assert supervisor.stdin is not None
        assert supervisor.stdout is not None
        supervisor.stdin.close()
        supervisor.stdout.close()
        # From now on it is a child of init. Popen would warn about a child without a wait().
        supervisor.returncode = 0

    def restart_kafka(self) -> None:
        """End Kafka if it still runs, and start it again on its address and data. Blocks until it answers."""
        self._tell("restart kafka")
        self._answer(None)

    def restart_redis(self) -> None:
        """End Valkey if it still runs, and start it again on its address and data. Blocks until it answers."""
        self._tell("restart valkey")
        self._answer(None)

    @property
    def kafka(self) -> str:
        """The bootstrap address, `host:port`."""
        return self._known().kafka

    @property
    def redis(self) -> str:
        """The URL, `redis://host:port/0`."""
        return self._known().redis

    @property
    def kafka_pid(self) -> int:
        """The process id of Kafka: a test may suspend, continue or kill it."""
        return self._known().kafka_pid

    @property
    def redis_pid(self) -> int:
        """The process id of Valkey: a test may suspend, continue or kill it."""
        return self._known().redis_pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._supervisor is None:
            raise DevstackError("this stack is not running: call start() first.")
        return self._supervisor

    def _known(self) -> State:
        if self._state is None:
            raise DevstackError("this stack is not running: call start() first.")
        return self._state

    def _tell(self, line: str) -> None:
        stdin = self._running().stdin
        assert stdin is not None
        try:
            stdin.write(line.encode() + b"\n")
            stdin.flush()
        except BrokenPipeError as error:
            raise DevstackError(
                "the supervisor of this stack has ended; see supervisor.log in its data folder."
            ) from error

    def _answer(self, data: Path | None) -> Addresses:
        stdout = self._running().stdout
        assert stdout is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        if not select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise DevstackError(
                f"the stack did not start within {START_TIMEOUT_S:.0f} s; see the logs in {data or 'its data folder'}."
            )
        line = stdout.readline()
        if not line:
            raise DevstackError(
                f"the supervisor ended without an error; see supervisor.log in {data or 'its data folder'}."
            )
        answer = json.loads(line)
        if "error" in answer:
            raise DevstackError(answer["error"])
        self._state = State(**answer["state"])
        return Addresses(self._state.kafka, self._state.redis)


@contextmanager
def running(data: Path | None = None) -> Iterator[Stack]:
    """Run a stack while the block runs, on `data` or on a new folder that is removed at the end."""
    folder = data or Path(tempfile.mkdtemp(prefix="guardline-"))
    try:
        with Stack() as stack:
            stack.start(folder, throw_away=data is None)
            yield stack
    finally:
        if data is None:
            shutil.rmtree(folder, ignore_errors=True)


def _spawn_supervisor(data: Path, throw_away: bool) -> subprocess.Popen[bytes]:
    search = os.pathsep.join(filter(None, (str(PROJECT), os.environ.get("PYTHONPATH"))))
    try:
        data.mkdir(parents=True, exist_ok=True)
        log = (data / "supervisor.log").open("ab")
    except OSError as error:
        raise DevstackError(f"cannot use the data folder {data}: {error.strerror or error}") from error
    with log:
        return subprocess.Popen(
            [sys.executable, "-m", "infra.devstack.supervisor", str(data), *(["--throw-away"] if throw_away else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": search},
            start_new_session=True,  # Only the parent gets Ctrl-C from the terminal, and then ends the stack in order.
        )
