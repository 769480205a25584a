"""infra/compose.yaml on a real engine: Kafka, Valkey and two workers in containers."""

from __future__ import annotations

import json
import re
import secrets
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from infra.devstack.kafka import HOST, free_ports
from tests.docker.engine import Compose, docker, inspect
from tests.site import Site, eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PORTS = ("KAFKA", "KAFKA_INTERNAL", "KAFKA_CONTROLLER", "VALKEY", "WORKER_1", "WORKER_2", "PROMETHEUS", "COLLECTOR")
SMALL_SET = ("kafka", "valkey", "topics", "worker-1", "worker-2")


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    """The small set, started once."""
    ports = {f"{name}_PORT": str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)}
    compose = Compose(f"guardline-test-{secrets.token_hex(3)}", ports)
    try:
        compose.up(*SMALL_SET)
        yield compose
        print(compose("logs", "--no-color", "--tail", "50"))
    finally:
        compose.down()


@pytest.fixture(scope="module")
def site(compose: Compose) -> Iterator[Site]:
    """The topics and the group of the compose file, as this machine sees them."""
    kafka, valkey = compose.variables["KAFKA_PORT"], compose.variables["VALKEY_PORT"]
    site = Site(f"{HOST}:{kafka}", f"redis://{HOST}:{valkey}/0")
    own = ("GUARDLINE_KAFKA__GROUP", "GUARDLINE_REDIS__NAMESPACE", "GUARDLINE_TOPICS__")
    site.environment = {name: value for name, value in site.environment.items() if not name.startswith(own)}
    yield site
    site.close()


def test_each_event_gets_one_verdict_and_both_workers_are_healthy(compose: Compose, site: Site) -> None:
    site.events(500)
    site.check()
    assert inspect(compose.container("topics"))["State"]["ExitCode"] == 0
    for worker in ("worker-1", "worker-2"):
        assert inspect(compose.container(worker))["State"]["Health"]["Status"] == "healthy"
        assert '"partitions": ["' in docker("logs", compose.container(worker))


def test_a_worker_killed_under_load_and_started_again_loses_and_duplicates_nothing(
    compose: Compose, site: Site
) -> None:
    answered = site.answered()
    site.events(3000, start=500)
    eventually(lambda: site.answered() > answered, "verdicts under load")
    docker("kill", compose.container("worker-1"))
    site.events(500, start=3500)
    docker("start", compose.container("worker-1"))
    site.check()
    assert inspect(compose.container("worker-1"))["State"]["Status"] == "running"


def test_docker_stop_drains_the_worker_with_exit_code_0(compose: Compose, site: Site) -> None:
    site.events(1000, start=4000)
    worker = compose.container("worker-2")
    docker("stop", "--time", "40", worker)
    assert inspect(worker)["State"]["ExitCode"] == 0
    ended = json.loads(docker("logs", "--tail", "1", worker))
    assert (ended["event"], ended["state"]) == ("worker ended", "stopped")
    docker("start", worker)
    site.check()


def test_the_worker_has_no_root_and_cannot_write_to_its_image(compose: Compose) -> None:
    worker = compose.container("worker-1")
    assert docker("exec", worker, "id", "-u").strip() == "10001"
    assert "Read-only file system" in docker("exec", worker, "touch", "/usr/share/guardline/new", code=1)
    capabilities = docker("exec", worker, "grep", "CapEff", "/proc/1/status").split()[1]
    assert int(capabilities, 16) == 0


def test_a_broker_killed_and_started_again_keeps_its_topics(compose: Compose, site: Site) -> None:
    docker("kill", compose.container("kafka"))
    docker("start", compose.container("kafka"))
    compose.up(*SMALL_SET)
    site.events(200, start=5000)
    site.check(120)


def test_prometheus_reads_both_workers_and_loads_the_rules(compose: Compose) -> None:
    compose.up("prometheus")

    def ask(path: str) -> Any:
        with urllib.request.urlopen(f"http://{HOST}:{compose.variables['PROMETHEUS_PORT']}/api/v1/{path}") as answer:
            return json.load(answer)["data"]

    def healths() -> list[str]:
        return [target["health"] for target in ask("targets")["activeTargets"]]

    eventually(lambda: healths() == ["up", "up"], "both workers are scraped")
    assert sum(len(group["rules"]) for group in ask("rules")["groups"]) > 0


def test_the_collector_receives_the_spans_of_a_worker_with_traces(compose: Compose, site: Site) -> None:
    """Each line of its debug exporter names the spans of a batch: `Traces {..., "resource spans": 1, "spans": 12}`."""
    compose.up("otel-collector")
    compose.variables["TRACES"] = "true"
    compose.up(*SMALL_SET)
    site.events(500, start=6000)
    site.check()

    def received() -> int:
        lines = docker("logs", compose.container("otel-collector"))
        return sum(map(int, re.findall(r'"spans": (\d+)', lines)))

    # Of each micro-batch: itself, the look-up in Redis, the call to the guard and the decision. Of each commit: one.
    eventually(lambda: received() >= 5, "spans at the collector")
    for worker in ("worker-1", "worker-2"):
        assert "traces are not exported" not in docker("logs", compose.container(worker))
