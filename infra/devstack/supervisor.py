"""The process that owns one Kafka and one Valkey: `python -m infra.devstack.supervisor DATA`.

It ends both when its standard input ends, when its parent ends, or on SIGTERM, whichever comes first. The kernel ends
both when the supervisor is killed. Only the line `detach` lets it outlive its parent.

Standard input: a line with the class path, then `detach`, `restart kafka` or `restart valkey`. Standard output: one
line of JSON each time something is ready, `{"state": {...}}` or `{"error": "a sentence"}`.
"""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import psutil

from infra.devstack import children, state, valkey
from infra.devstack.errors import DevstackError
from infra.devstack.kafka import Broker, PortTakenError, aot_cache, free_ports, is_free
from infra.devstack.state import State

PORT_ATTEMPTS = 5
POLL_S = 0.25
UNPRIVILEGED = 1024
"""The first port that needs no privilege."""

FULL_BYTES = 1_000_000
"""With less free space neither server starts."""


class _StopRequestedError(Exception):
    """SIGTERM arrived."""


class Supervisor:
    """The two servers of one data folder. Every method blocks until it has finished."""

    def __init__(self, data: Path, jars: Sequence[Path]) -> None:
        self.data = data
        self.jars = jars
        self.broker = Broker(data, 0, 0)
        self.redis_port = 0
        self.kafka: subprocess.Popen[bytes] | None = None
        self.valkey: subprocess.Popen[bytes] | None = None
        self.trainer: subprocess.Popen[bytes] | None = None

    def start(self) -> State:
        """Start both on the ports of the last run if these are free. Start again on others if a port is taken."""
        for attempt in range(PORT_ATTEMPTS):
            ports = ports_for(self.data) if attempt == 0 else free_ports(3)
            kafka_port, controller_port, self.redis_port = ports
            self.broker = Broker(self.data, kafka_port, controller_port)
            try:
                self.broker.configure(self.jars)
                self.kafka, log_start = self._launch_kafka()
                self.valkey = valkey.start(self.data, self.redis_port)
                self.broker.wait_until_ready(self.kafka, log_start)
            except PortTakenError:
                self.stop(at_once=True)
                continue
            self._train()
            return self._publish()
        raise DevstackError(f"no free ports: {PORT_ATTEMPTS} times another process took one that had just been free.")

    def restart(self, name: str) -> State:
        """End `kafka` or `valkey` if it still runs, and start it on the same port and data."""
        try:
            if name == "kafka":
                if self.kafka is not None:
                    children.stop(self.kafka)
                self.kafka, log_start = self._launch_kafka()
                self.broker.wait_until_ready(self.kafka, log_start)
            else:
                if self.valkey is not None:
                    children.stop(self.valkey)
                self.valkey = valkey.start(self.data, self.redis_port)
        except PortTakenError:
            raise DevstackError(f"cannot restart {name}: another process took its port.") from None
        return self._publish()

    def stop(self, *, at_once: bool = False) -> None:
        """End the servers that run."""
        running = [process for process in (self.trainer, self.kafka, self.valkey) if process is not None]
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL if at_once or process is self.trainer else signal.SIGTERM)
        for process in running:
            children.stop(process, at_once=at_once)

    def has_lost_a_child(self) -> bool:
        """Whether one of the servers ended by itself."""
        return any(process is None or process.poll() is not None for process in (self.kafka, self.valkey))

    def _launch_kafka(self) -> tuple[subprocess.Popen[bytes], int]:
        self.broker.log.touch()
        return self.broker.start(self.jars), self.broker.log.stat().st_size

    def _train(self) -> None:
        if not aot_cache(self.jars).exists():
            command = [sys.executable, "-m", "infra.devstack.training"]
            self.trainer = children.spawn([*command, *self.jars], self.data / "training.log")

    def _publish(self) -> State:
        assert self.kafka is not None
        assert self.valkey is not None
        now = State(
            kafka=self.broker.address,
            redis=f"redis://127.0.0.1:{self.redis_port}/0",
            kafka_pid=self.kafka.pid,
            redis_pid=self.valkey.pid,
            supervisor_pid=os.getpid(),
            create_time=psutil.Process().create_time(),
        )
        state.keep_ports(self.data, [self.broker.port, self.broker.controller_port, self.redis_port])
        state.write(self.data, now)
        return now


def ports_for(data: Path) -> list[int]:
    """Ports for Kafka, its controller and Valkey: those of the folder's last run if all three are free."""
    kept = state.ports_of_last_run(data)
    is_usable = len(kept) == len(set(kept)) == 3 and min(kept) >= UNPRIVILEGED and all(map(is_free, kept))
    return kept if is_usable else free_ports(3)


def main() -> None:
    """Run until told to stop. Exit code 1 if the servers could not be started."""
    signal.signal(signal.SIGTERM, _raise_stopped)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    data = Path(sys.argv[1])
    throw_away = "--throw-away" in sys.argv[2:]
    jars = [Path(jar) for jar in _read_line().split(os.pathsep)]
    held = state.lock(data)
    if held is None:
        _say(error=state.already_running_sentence(data))
        sys.exit(1)
    state.clear(data)
    supervisor = Supervisor(data, jars)
    has_started = False
    try:
        _say(state=supervisor.start())
        has_started = True
        _serve(supervisor, parent)
    except (DevstackError, OSError) as error:
        _say(error=_sentence(data, error))
        sys.exit(1)
    except _StopRequestedError:
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        supervisor.stop(at_once=throw_away or not has_started)
        state.clear(data)
        held.close()
        if throw_away:
            # The parent removes it too, unless it was killed.
            shutil.rmtree(data, ignore_errors=True)


def _serve(supervisor: Supervisor, parent: int) -> None:
    is_detached = False
    while True:
        if is_detached:
            # If one server ended, end the other as well, so that `status` says that no stack runs.
            if supervisor.has_lost_a_child():
                return
            select.select([], [], [], POLL_S)
            continue
        # Forked children of the parent may keep its end of the pipe open, so check the parent as well.
        if os.getppid() != parent:
            return
        if not select.select([sys.stdin], [], [], POLL_S)[0]:
            continue
        match _read_line().split():
            case []:
                return
            case ["detach"]:
                is_detached = True
            case ["restart", name]:
                try:
                    _say(state=supervisor.restart(name))
                except DevstackError as error:
                    _say(error=str(error))


def _sentence(data: Path, error: Exception) -> str:
    # Each server reports a full disk differently, or not at all. So check the disk itself.
    if shutil.disk_usage(data).free < FULL_BYTES:
        return (
            f"the disk is full: no room for Kafka and Valkey in {data}. Free some, or name another folder with --data."
        )
    return str(error)


def _read_line() -> str:
    # Unbuffered, because select() sees only the bytes that are still in the pipe.
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode()


def _say(*, state: State | None = None, error: str | None = None) -> None:
    answer = {"error": error} if state is None else {"state": asdict(state)}
    try:
        os.write(1, json.dumps(answer).encode() + b"\n")
    except BrokenPipeError:
        raise _StopRequestedError from None


def _raise_stopped(signum: int, frame: FrameType | None) -> None:
    raise _StopRequestedError


if __name__ == "__main__":
    main()
