"""infra/compose.yaml on a real engine: Kafka, Valkey and two workers in containers."""

from __future__ import annotations

import json
import re
import secrets
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from infra.devstack.kafka import HOST, free_ports
from tests.docker.engine import USES_HOST_NETWORK, Compose, docker, inspect
from tests.site import Site, eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PORTS = (
    *("KAFKA", "KAFKA_INTERNAL", "KAFKA_CONTROLLER", "VALKEY", "WORKER_1", "WORKER_2", "PROMETHEUS", "COLLECTOR"),
    *("AGGREGATES", "REVIEW", "REVIEW_API", "ACTIONS"),
)
SMALL_SET = ("kafka", "valkey", "topics", "worker-1", "worker-2")


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    """The small set, started once."""
    ports = {f"{name}_PORT": str(port) for name, port in zip(PORTS, free_ports(len(PORTS)), strict=True)}
    compose = Compose(f"guardline-test-{secrets.token_hex(3)}", ports)
    try:
        compose.up(*SMALL_SET)
        yield compose
        print(compose("--profile", "*", "logs", "--no-color", "--tail", "50"))
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
        targets = ask("targets")["activeTargets"]
        return [target["health"] for target in targets if target["labels"]["job"] == "guardline"]

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


@contextmanager
def receiver() -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Receive webhooks on this machine. Gives the port, and the bodies of the calls."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["webhook-signature"]
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

    # The bridge network leads to an address of this machine that is not the loopback one.
    with ThreadingHTTPServer((HOST if USES_HOST_NETWORK else "0.0.0.0", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, bodies
        finally:
            server.shutdown()
            thread.join()


def test_a_person_decides_an_item_and_the_platform_hears_of_both_verdicts(
    compose: Compose, site: Site, tmp_path: Path
) -> None:
    """The workers aggregates, review and actions, each in its container. It is the last test: it adds verdicts."""
    token, secret, policy = tmp_path / "token", tmp_path / "secret", tmp_path / "policy.yaml"
    token.write_text(secrets.token_hex(32))
    secret.write_text(f"whsec_{b64encode(secrets.token_bytes(32)).decode()}")
    policy.write_text("safe: review")
    with receiver() as (port, bodies), httpx.Client(headers={"Authorization": f"Bearer {token.read_text()}"}) as client:
        compose.variables |= {
            "REVIEW_TOKEN_FILE": str(token),
            "WEBHOOK_SECRET_FILE": str(secret),
            "WEBHOOK_URL": f"http://host.docker.internal:{port}/",
        }
        site.command("policy", "set", "acme", policy)
        compose.up("aggregates", "review", "actions")
        site.events(1, start=7000)
        api = f"http://{HOST}:{compose.variables['REVIEW_API_PORT']}/v1"
        eventually(lambda: client.post(f"{api}/next", json={}).status_code == 200, "the item is on lease")
        [item] = client.get(f"{api}/leases").json()["items"]
        decided = client.post(f"{api}/items/{item['verdict_id']}/decide", json={"decision": "block"})
        assert decided.status_code == 200, decided.text

        def calls() -> list[dict[str, Any]]:
            return [body for body in bodies if body["data"].get("event_id") == "e7000"]

        eventually(lambda: len(calls()) >= 2, "the calls for the verdict of the guard and for that of the person")
        first, second = calls()
        assert (first["type"], first["data"]["decision"]) == ("verdict.created", "review")
        assert (second["type"], second["data"]["decision"]) == ("verdict.superseded", "block")
        assert second["data"]["supersedes"] == first["data"]["verdict_id"] == item["verdict_id"]

    metrics = f"http://{HOST}:{compose.variables['AGGREGATES_PORT']}/metrics"
    counted = re.compile(r"^guardline_aggregates_verdicts_total (\d+)", re.MULTILINE)
    eventually(lambda: float(counted.findall(httpx.get(metrics).text)[0]) > 5000, "the verdicts are counted")
