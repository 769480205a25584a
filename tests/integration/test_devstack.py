"""The embedded stack: what it starts, what it refuses, and that it leaves nothing behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import redis
from confluent_kafka.admin import AdminClient

from infra.devstack import DevstackError, commands, jars, running, state, supervisor
from infra.devstack.kafka import free_ports
from tests.command import GUARDLINE, inheriting

HOLD_A_STACK = """
import json, time
from infra.devstack import running
with running() as stack:
    print(json.dumps([stack.kafka_pid, stack.redis_pid]), flush=True)
    time.sleep(600)
"""
PROJECT = Path(__file__).resolve().parents[2]


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def brokers(address: str) -> list[int]:
    admin = AdminClient({"bootstrap.servers": address})
    return [broker.port for broker in admin.list_topics(timeout=5).brokers.values()]


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def repository() -> Iterator[tuple[str, list[str]]]:
    """A Maven repository on loopback that serves the real jars and records the requested paths."""
    files = {jar.path: file for jar, file in zip(jars.pinned(), jars.ensure(), strict=True)}
    asked: list[str] = []

    class Serve(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path.removeprefix("/"))
            content = files[asked[-1]].read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name http.server wants
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Serve) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def cached_copy(repository: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new cache folder with the real jars, and the loopback repository as its source."""
    real = jars.ensure()[0].parent
    copy = tmp_path / "cache" / real.name
    shutil.copytree(real, copy)
    monkeypatch.setenv("GUARDLINE_CACHE", str(copy.parent))
    monkeypatch.setenv("GUARDLINE_MAVEN_URL", repository[0])
    return copy


def test_two_stacks_run_side_by_side_and_leave_nothing_behind() -> None:
    with running() as one, running() as other:
        assert one.kafka != other.kafka
        for stack in (one, other):
            assert brokers(stack.kafka) == [int(stack.kafka.rpartition(":")[2])]
            with redis.Redis.from_url(stack.redis) as client:
                client.set("of", stack.redis)
        with redis.Redis.from_url(one.redis) as client:
            assert client.get("of") == one.redis.encode()
        pids = [one.kafka_pid, one.redis_pid, other.kafka_pid, other.redis_pid]
    assert all(is_gone(pid) for pid in pids)


def test_a_killed_valkey_restarts_on_its_address_with_its_data() -> None:
    with running() as stack:
        address = stack.redis
        with redis.Redis.from_url(address) as client:
            client.set("kept", "yes")
            client.wait(0, 0)
        os.kill(stack.redis_pid, signal.SIGTERM)
        stack.restart_redis()
        assert stack.redis == address
        with redis.Redis.from_url(address) as client:
            assert client.get("kept") == b"yes"


def test_a_parent_killed_with_sigkill_leaves_no_process_and_no_folder_behind(tmp_path: Path) -> None:
    command, env = [sys.executable, "-c", HOLD_A_STACK], {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=PROJECT, env=env) as parent:
        assert parent.stdout is not None
        pids = json.loads(parent.stdout.readline())
        assert not any(is_gone(pid) for pid in pids)
        parent.kill()
    assert wait_for(lambda: all(is_gone(pid) for pid in pids))
    assert wait_for(lambda: not list(tmp_path.glob("guardline-*")))


def test_a_supervisor_killed_with_sigkill_leaves_no_process_and_up_status_down_still_work(tmp_path: Path) -> None:
    with pytest.raises(DevstackError, match=f"no stack is running on {tmp_path}"):
        commands.status(tmp_path)
    addresses = commands.up(tmp_path)
    try:
        assert commands.status(tmp_path) == addresses
        assert brokers(addresses.kafka)
        with pytest.raises(DevstackError, match=f"already running on {tmp_path}: Kafka at {addresses.kafka}"):
            commands.up(tmp_path)
        first = json.loads((tmp_path / "state.json").read_text())
        os.kill(first["supervisor_pid"], signal.SIGKILL)
        assert wait_for(lambda: is_gone(first["kafka_pid"]) and is_gone(first["redis_pid"]))
        assert commands.up(tmp_path) == addresses
        second = json.loads((tmp_path / "state.json").read_text())
    finally:
        commands.down(tmp_path)
    assert all(is_gone(second[name]) for name in ("supervisor_pid", "kafka_pid", "redis_pid"))
    with pytest.raises(DevstackError, match="no stack is running"):
        commands.down(tmp_path)


def test_ctrl_c_ends_a_starting_stack_at_once_and_leaves_no_process(tmp_path: Path) -> None:
    command: list[str | Path] = [GUARDLINE, "devstack", "up", "--data", tmp_path]
    with inheriting():
        starting = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=PROJECT)
    with starting:
        assert starting.stderr is not None
        assert starting.stderr.readline() == f"starting Apache Kafka and Valkey; their data is in {tmp_path}\n".encode()
        assert wait_for((tmp_path / "supervisor.log").exists, 60)
        (supervisor_process,) = psutil.Process(starting.pid).children()
        assert wait_for(lambda: len(supervisor_process.children()) == 2, 60)
        pids = [supervisor_process.pid, *(process.pid for process in supervisor_process.children())]
        starting.send_signal(signal.SIGINT)
        assert starting.wait(10) == 130
        assert starting.stderr.read() == b""
    assert wait_for(lambda: all(is_gone(pid) for pid in pids))
    assert not state.is_running(tmp_path)
    assert not state.ports_of_last_run(tmp_path), "it ended only after both had answered"


@pytest.mark.parametrize("kept", ["null", "{", "[1, 2, 3]", '["a"]', "[0, 0, 0]", "[99999, -1, 70000]"])
def test_ports_of_the_last_run_that_are_in_use_are_replaced(tmp_path: Path, kept: str) -> None:
    (tmp_path / "ports.json").write_text(kept)
    ports = supervisor.ports_for(tmp_path)
    assert len(set(ports)) == 3
    assert min(ports) >= 1024
    with socket.create_server(("127.0.0.1", ports[1])):
        state.keep_ports(tmp_path, ports)
        assert ports[1] not in supervisor.ports_for(tmp_path)
    assert supervisor.ports_for(tmp_path) == ports


def test_a_tampered_jar_is_downloaded_again(cached_copy: Path, repository: tuple[str, list[str]]) -> None:
    asked = repository[1]
    jar = jars.pinned()[0]
    (cached_copy / jar.name).write_bytes(b"not the pinned jar")
    jars.ensure()
    assert asked == [jar.path]
    assert (cached_copy / jar.name).read_bytes() != b"not the pinned jar"


def test_a_jar_that_is_not_the_pinned_one_is_never_kept(cached_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *others = jars.pinned()
    monkeypatch.setattr(jars, "pinned", lambda: (jars.Jar(first.path, "0" * 64), *others))
    with pytest.raises(DevstackError, match=r"is not the pinned jar: its SHA-256 is [0-9a-f]{64}, expected 0{64}"):
        jars.ensure()
    assert not list(cached_copy.glob("*.part"))


def test_a_refused_download_is_reported_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDLINE_CACHE", str(tmp_path))
    monkeypatch.setenv("GUARDLINE_MAVEN_URL", f"http://127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.setattr(jars, "ATTEMPTS", 2)
    with (
        pytest.raises(
            DevstackError, match=r"cannot download Apache Kafka .*: .*Connection refused.* set GUARDLINE_MAVEN_URL"
        ),
        running(tmp_path / "data"),
    ):
        pass


def test_ports_that_are_taken_each_time_are_reported_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(supervisor, "free_ports", lambda _: [*free_ports(2), taken.getsockname()[1]])
        monkeypatch.setattr(supervisor, "PORT_ATTEMPTS", 2)
        started = supervisor.Supervisor(tmp_path, jars.ensure())
        try:
            with pytest.raises(DevstackError, match="no free ports: 2 times another process took one"):
                started.start()
        finally:
            started.stop(at_once=True)


@pytest.mark.mounts
def test_a_full_disk_is_reported_in_a_sentence(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=1m none {tmp_path}"
    alone = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    start = f"from pathlib import Path; from infra.devstack import Stack; Stack().start(Path('{tmp_path}'))"
    program = f'{mount}; cat /dev/zero > {tmp_path}/others 2>&-; exec {sys.executable} -c "{start}"'
    run = subprocess.run([*alone, program], check=False, capture_output=True, text=True, timeout=100, cwd=PROJECT)
    assert f"DevstackError: the disk is full: no room for Kafka and Valkey in {tmp_path}" in run.stderr, run.stderr
