"""Kafka and Valkey in containers, by testcontainers: the stack of `GUARDLINE_TEST_STACK=testcontainers`.

The ports are chosen before the start, because a broker tells clients its own address. testcontainers' helper container,
Ryuk, is not used: it would be one more image. A label names the process that started a container instead, and each run
removes the containers of processes that have ended.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import docker
import psutil
import pytest
from docker.errors import APIError, DockerException
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from infra.devstack import kafka, valkey
from infra.devstack.kafka import HOST, Broker, free_ports

testcontainers_config.ryuk_disabled = True

KAFKA_IMAGE = os.environ.get("KAFKA_IMAGE") or "apache/kafka:4.1.1"
VALKEY_IMAGE = os.environ.get("VALKEY_IMAGE") or "valkey/valkey:9"
USES_HOST_NETWORK = os.environ.get("GUARDLINE_TEST_NETWORK") == "host"
"""For an engine without a bridge network: the containers then listen on this machine's loopback interface."""

START_TIMEOUT_S = 90.0
START_ATTEMPTS = 3
CLOCK_STEP_S = 5.0
OWNER = "guardline.test.owner"
"""The label with the process that started a container: host, process id and start time."""


class Server:
    """One container with one port of this machine. `answers` says whether its server works."""

    def __init__(self, container: DockerContainer, port: int, answers: Callable[[], bool]) -> None:
        network = {"network_mode": "host"} if USES_HOST_NETWORK else {"ports": {port: (HOST, port)}}
        container.with_kwargs(labels={OWNER: owner(os.getpid())}, **network)
        self._container = container
        self._answers = answers

    def start(self) -> None:
        """Create and start the container, and wait until its server answers."""
        self._container.start()
        self._wait()

    def remove(self) -> None:
        """End the container at once, and remove it with its data."""
        self._container.stop()

    def kill(self) -> None:
        """End it as SIGKILL does."""
        self._container.get_wrapped_container().kill()

    def restart(self) -> None:
        """End it in order if it runs, start it again on its data, and wait until its server answers."""
        self._container.get_wrapped_container().restart(timeout=30)
        self._wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Suspend its processes during the block."""
        container = self._container.get_wrapped_container()
        container.pause()
        try:
            yield
        finally:
            container.unpause()

    def _wait(self) -> None:
        container = self._container.get_wrapped_container()
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            container.reload()
            # At once, because the log says why: for example that another process took the port.
            if container.status == "exited" or time.monotonic() > deadline:
                log = container.logs(tail=20).decode(errors="replace")
                raise StartError(f"{self._container.image} is {container.status} and does not answer:\n{log}")
            time.sleep(0.1)


class StartError(Exception):
    """A container ended while it started, or its server does not answer; the message ends with its log."""


class Containers:
    """The two servers, as `tests.stack.Stack` describes them."""

    def __init__(self) -> None:
        port, controller_port, redis_port = free_ports(3)
        self.kafka = f"{HOST}:{port}"
        self.redis = f"redis://{HOST}:{redis_port}/0"
        self._kafka = Server(_kafka(port, controller_port), port, Broker(Path(), port, controller_port).answers)
        self._valkey = Server(_valkey(redis_port), redis_port, lambda: valkey.answers(redis_port))

    def start(self) -> None:
        self._valkey.start()
        self._kafka.start()

    def remove(self) -> None:
        self._kafka.remove()
        self._valkey.remove()

    def kill_kafka(self) -> None:
        self._kafka.kill()

    def kill_redis(self) -> None:
        self._valkey.kill()

    def restart_kafka(self) -> None:
        self._kafka.restart()

    def restart_redis(self) -> None:
        self._valkey.restart()

    @contextmanager
    def frozen_kafka(self) -> Iterator[None]:
        with self._kafka.frozen():
            yield


def _kafka(port: int, controller_port: int) -> DockerContainer:
    """A broker with the settings of the embedded one."""
    lines = kafka.properties(Path("/var/lib/kafka/data"), Broker(Path(), port, controller_port)).splitlines()
    settings = dict(line.split("=", 1) for line in lines)
    if not USES_HOST_NETWORK:
        settings["listeners"] = settings["listeners"].replace(f"PLAINTEXT://{HOST}", "PLAINTEXT://0.0.0.0")
    names = {name: f"KAFKA_{name.replace('.', '_').upper()}" for name in settings}
    return DockerContainer(KAFKA_IMAGE, env={names[name]: value for name, value in settings.items()})


def _valkey(port: int) -> DockerContainer:
    settings = {**valkey.settings(port), "bind": HOST if USES_HOST_NETWORK else "0.0.0.0", "protected-mode": "no"}
    flags = [part for name, value in settings.items() for part in (f"--{name}", value)]
    return DockerContainer(VALKEY_IMAGE).with_command(["valkey-server", *flags])


@contextmanager
def running() -> Iterator[Containers]:
    """Run both containers while the block runs. What is missing fails the tests with a sentence."""
    try:
        client = DockerClient().client
        _sweep(client)
        client.close()
    except DockerException as error:
        pytest.fail(f"no Docker engine answers: start one, or set DOCKER_HOST ({error})", pytrace=False)
    with ExitStack() as until_the_end:
        for attempt in range(START_ATTEMPTS):
            containers = Containers()
            until_the_end.callback(containers.remove)
            try:
                containers.start()
                break
            except StartError as error:
                # A port may have been taken after it was chosen.
                if attempt == START_ATTEMPTS - 1:
                    pytest.fail(str(error), pytrace=False)
                until_the_end.close()
            except APIError as error:
                images = f"KAFKA_IMAGE ({KAFKA_IMAGE}) and VALKEY_IMAGE ({VALKEY_IMAGE})"
                pytest.fail(f"cannot start {images}: {error.explanation}. Name images of your own there", pytrace=False)
        yield containers


def _sweep(client: docker.DockerClient) -> None:
    """Remove the containers of test runs on this machine that were killed."""
    # The plain list: the other one also inspects each container, and fails if another process has just removed it.
    for found in client.api.containers(all=True, filters={"label": OWNER}):
        if _is_abandoned(found["Labels"][OWNER]):
            with suppress(APIError):  # Another process of this run removes it.
                client.api.remove_container(found["Id"], force=True, v=True)


def owner(pid: int) -> str:
    """Name a process: its host, its id and its start time."""
    return f"{socket.gethostname()} {pid} {psutil.Process(pid).create_time()}"


def _is_abandoned(started_by: str) -> bool:
    host, pid, started = started_by.rsplit(" ", 2)
    if host != socket.gethostname():
        return False
    try:
        # A start time moves with the clock of the machine. A later process with the same id differs by more.
        return abs(psutil.Process(int(pid)).create_time() - float(started)) > CLOCK_STEP_S
    except psutil.NoSuchProcess:
        return True
