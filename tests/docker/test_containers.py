"""The stack of `GUARDLINE_TEST_STACK=testcontainers`: faults, leftovers, and the sentences about missing parts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from redis import Redis
from redis.exceptions import ConnectionError as NoConnectionError

from tests import containers
from tests.docker.engine import PROJECT, docker
from tests.stack import Stack

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

HOLD_A_STACK = """
import signal
from tests import containers
with containers.running() as stack:
    print(stack.kafka, flush=True)
    signal.pause()
"""
A_TEST = "tests/unit/redis/test_dedup.py::test_the_first_verdict_stays_the_first"


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with containers.running() as stack:
        yield stack


def topics(stack: Stack) -> set[str]:
    admin = AdminClient({"bootstrap.servers": stack.kafka, "log_level": 0})
    return set(admin.list_topics(timeout=2).topics)


def test_killed_servers_restart_on_their_addresses_with_their_data(stack: Stack) -> None:
    admin = AdminClient({"bootstrap.servers": stack.kafka, "log_level": 0})
    admin.create_topics([NewTopic("kept", 1, 1)])["kept"].result(20)
    with Redis.from_url(stack.redis) as client:
        client.set("kept", "yes")
        stack.kill_kafka()
        stack.kill_redis()
        with pytest.raises(KafkaException):
            topics(stack)
        with pytest.raises(NoConnectionError):
            client.ping()
        stack.restart_kafka()
        stack.restart_redis()
        assert client.get("kept") == b"yes"
    assert "kept" in topics(stack)


def test_a_frozen_kafka_answers_again_after_the_block(stack: Stack) -> None:
    with stack.frozen_kafka(), pytest.raises(KafkaException):
        topics(stack)
    assert topics(stack) is not None


def test_the_next_run_removes_the_containers_of_a_killed_run() -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD_A_STACK], stdout=subprocess.PIPE, cwd=PROJECT) as run:
        assert run.stdout is not None
        assert run.stdout.readline()
        owner = containers.owner(run.pid)
        run.kill()
    left = ("ps", "--all", "--quiet", "--filter", f"label={containers.OWNER}={owner}")
    assert len(docker(*left).split()) == 2
    with containers.running():
        assert docker(*left) == ""


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"DOCKER_HOST": "unix:///tmp/no-engine.sock"}, "no Docker engine answers: start one, or set DOCKER_HOST"),
        ({"KAFKA_IMAGE": "guardline-test/absent:1"}, "cannot start KAFKA_IMAGE (guardline-test/absent:1)"),
        ({"GUARDLINE_TEST_STACK": "compose"}, "'compose' is not a stack (one of: embedded, testcontainers)"),
    ],
)
def test_a_missing_part_fails_the_tests_with_a_sentence(variables: dict[str, str], sentence: str) -> None:
    environment = {**os.environ, "GUARDLINE_TEST_STACK": "testcontainers", **variables}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", A_TEST],
        capture_output=True,
        text=True,
        env=environment,
        cwd=PROJECT,
        check=False,
    )
    assert done.returncode == 1
    assert sentence in done.stdout
    assert "Traceback" not in done.stdout
