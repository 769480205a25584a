"""The Kafka and the Valkey of a test run, and the faults that tests cause in them.

`GUARDLINE_TEST_STACK` chooses where they come from: `embedded` (the default) or `testcontainers`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from infra import devstack
from tests.site import eventually

VARIABLE = "GUARDLINE_TEST_STACK"


class Stack(Protocol):
    """One Kafka and one Valkey. Every method blocks until it has finished."""

    @property
    def kafka(self) -> str:
        """The bootstrap address, `host:port`. It stays the same over restarts."""

    @property
    def redis(self) -> str:
        """The URL, `redis://host:port/0`. It stays the same over restarts."""

    def kill_kafka(self) -> None:
        """End Kafka as SIGKILL does; its data stays."""

    def kill_redis(self) -> None:
        """End Valkey as SIGKILL does; its data stays."""

    def restart_kafka(self) -> None:
        """End Kafka in order if it still runs, and start it again on its address and data."""

    def restart_redis(self) -> None:
        """End Valkey in order if it still runs, and start it again on its address and data."""

    def frozen_kafka(self) -> AbstractContextManager[None]:
        """Suspend Kafka during the block: connections stay open, and nothing answers."""


@contextmanager
def running() -> Iterator[Stack]:
    """Run the stack that `GUARDLINE_TEST_STACK` names while the block runs."""
    match os.environ.get(VARIABLE) or "embedded":
        case "embedded":
            with devstack.running() as servers:
                yield Embedded(servers)
        case "testcontainers":
            from tests import containers

            with containers.running() as stack:
                yield stack
        case other:
            pytest.fail(f"{VARIABLE}: {other!r} is not a stack (one of: embedded, testcontainers)", pytrace=False)


class Embedded:
    """The embedded stack: processes of this machine."""

    def __init__(self, servers: devstack.Stack) -> None:
        self._servers = servers

    @property
    def kafka(self) -> str:
        return self._servers.kafka

    @property
    def redis(self) -> str:
        return self._servers.redis

    def kill_kafka(self) -> None:
        os.kill(self._servers.kafka_pid, signal.SIGKILL)

    def kill_redis(self) -> None:
        os.kill(self._servers.redis_pid, signal.SIGKILL)

    def restart_kafka(self) -> None:
        self._servers.restart_kafka()

    def restart_redis(self) -> None:
        self._servers.restart_redis()

    @contextmanager
    def frozen_kafka(self) -> Iterator[None]:
        """A process's threads stop one after the other, and some still answer until then."""
        pid = self._servers.kafka_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            threads = Path(f"/proc/{pid}/task")
            eventually(lambda: all(_has_stopped(thread) for thread in threads.iterdir()), "all threads have stopped")
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


def _has_stopped(thread: Path) -> bool:
    try:
        return (thread / "stat").read_text().rpartition(") ")[2].startswith("T")
    except (FileNotFoundError, ProcessLookupError):  # It has ended.
        return True
