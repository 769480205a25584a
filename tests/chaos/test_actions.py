"""Real actions workers, killed and frozen, and a receiver in a process of its own: what arrives, what Kafka says."""

from __future__ import annotations

import base64
import json
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.command import GUARDLINE
from tests.servers.receiver import Receiver
from tests.site import Process, Site, eventually
from workers.kafka.intake import headers_of
from workers.kafka.reader import read
from workers.kafka.topics import create

SECRET = "whsec_" + base64.b64encode(b"\x07" * 32).decode()
FIXTURES = Path(__file__).parents[1] / "fixtures" / "contracts"
TEXT = "a text that no webhook has"


def newest(contract: str) -> dict[str, Any]:
    path = max((FIXTURES / contract).glob("*.json"), key=lambda file: [int(part) for part in file.stem.split(".")])
    document: dict[str, Any] = json.loads(path.read_text())
    return document


class Actions:
    """A site with endpoints, and verdicts in its topics."""

    def __init__(self, site: Site, receiver: Receiver) -> None:
        self.site, self.receiver = site, receiver
        (receiver.folder / "secret").write_text(SECRET)
        self.topics = site.settings().topics
        self.endpoints: list[dict[str, Any]] = []

    def endpoint(self, name: str, url: str = "", **changes: Any) -> None:
        self.endpoints.append(
            {
                "name": name,
                "url": url or self.receiver.url(name),
                "allow_http": True,
                "allow_networks": ["127.0.0.0/8"],
                "secret_files": [str(self.receiver.folder / "secret")],
                "undelivered": self.undelivered(name),
                "retry": {"first_s": 0.05, "max_s": 0.2},
                "timeout_s": 2,
                **changes,
            }
        )

    def undelivered(self, name: str) -> str:
        return f"{self.site.environment['GUARDLINE_KAFKA__GROUP']}.undelivered.{name}"

    def create_topics(self) -> None:
        self.site.environment["GUARDLINE_ACTIONS__ENDPOINTS"] = json.dumps(self.endpoints)
        letters = [self.undelivered(endpoint["name"]) for endpoint in self.endpoints]
        create(
            self.site.settings(),
            [*(getattr(self.topics, name) for name in ("verdicts", "review", "deliveries", "forget")), *letters],
        )

    def worker(self, name: str) -> Process:
        return self.site.worker(GUARDLINE, "worker", "actions", "--id", name)

    def verdicts(self, count: int, start: int = 0, *, keys: int = 20, **fields: Any) -> list[str]:
        """Write verdicts, and return their ids. `event_id` is the key and the number in it."""
        base = {**newest("verdict"), "supersedes": None, "superseded_decision": None, **fields}
        ids = []
        producer = self.producer()
        for number in range(start, start + count):
            document = {**base, "verdict_id": f"{number:032x}", "event_id": f"k{number % keys}/{number:06}"}
            producer.produce(self.topics.verdicts, json.dumps(document).encode(), f"k{number % keys}".encode())
            ids.append(document["verdict_id"])
        assert producer.flush(30) == 0
        return ids

    def producer(self) -> Producer:
        # Without idempotence a retry, as after the creation of a topic, changes the order.
        return Producer({"bootstrap.servers": self.site.settings().kafka.bootstrap_servers, "enable.idempotence": True})

    def records(self, topic: str) -> list[Any]:
        found = read(self.site.settings().kafka, [topic], from_beginning=True, follow=False)
        return [message for message in found if message is not None]

    def deliveries(self, endpoint: str) -> list[dict[str, Any]]:
        found = [json.loads(message.value()) for message in self.records(self.topics.deliveries)]
        return [one for one in found if one["endpoint"] == endpoint]


@pytest.fixture
def actions(site: Site, tmp_path: Path) -> Iterator[Actions]:
    receiver = Receiver(tmp_path, SECRET)
    try:
        yield Actions(site, receiver)
    finally:
        receiver.close()


def first_arrivals(calls: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Give the events of each key in the order in which they were accepted for the first time."""
    seen: set[str] = set()
    order: dict[str, list[str]] = defaultdict(list)
    for call in calls:
        if call["status"] == 200 and call["id"] not in seen:
            seen.add(call["id"])
            key, _, number = call["data"]["event_id"].partition("/")
            order[key].append(number)
    return order


@pytest.mark.timeout(180)
def test_killed_frozen_and_drained_workers_deliver_every_verdict_in_the_order_of_its_key(actions: Actions) -> None:
    """At least once, always with the same id: a kill repeats what was accepted and not committed, and loses nothing."""
    actions.endpoint("flaky", concurrency=8, retry={"first_s": 0.01, "max_s": 0.02, "max_attempts": 50})
    actions.create_topics()
    expected = set(actions.verdicts(2_000))
    first, second = actions.worker("one"), actions.worker("two")

    def accepted() -> int:
        return len({call["id"] for call in actions.receiver.calls() if call["status"] == 200})

    eventually(lambda: accepted() > 200, "some are delivered")
    first.send(signal.SIGKILL)
    first.wait()
    expected |= set(actions.verdicts(1_000, 2_000))
    eventually(lambda: accepted() > 1_000 or second.popen.poll() is not None, "the other one goes on")
    second.send(signal.SIGSTOP)
    third = actions.worker("three")
    eventually(lambda: third.has_partitions, "a third worker takes over")
    second.send(signal.SIGCONT)
    third.send(signal.SIGTERM)
    assert third.wait() == 0
    fourth = actions.worker("four")
    eventually(lambda: len(actions.deliveries("flaky")) == len(expected), "every delivery has its record", 60)
    calls = actions.receiver.calls()
    assert {call["id"] for call in calls if call["status"] == 200} == expected
    assert {key: order for key, order in first_arrivals(calls).items() if order != sorted(order)} == {}
    assert sum(map(len, first_arrivals(calls).values())) == len(expected)
    # Exactly once in Kafka, at least once at the receiver.
    records = Counter(one["id"] for one in actions.deliveries("flaky"))
    assert (set(records), set(records.values())) == (expected, {1})
    assert {one["outcome"] for one in actions.deliveries("flaky")} == {"delivered"}
    repeats = len([call for call in calls if call["status"] == 200]) - len(expected)
    print(f"{repeats} repeated deliveries: one kill, one freeze")
    eventually(lambda: fourth.has_partitions, "the fourth worker has started")
    fourth.send(signal.SIGTERM)
    assert fourth.wait() == 0


@pytest.mark.timeout(180)
def test_endpoints_that_fail_do_not_delay_one_that_works(actions: Actions) -> None:
    """One worker, six endpoints. The dead letters say why, and `redeliver` sends each of them once."""
    every_decision = ["allow", "review", "block"]
    actions.endpoint("ok", decisions=every_decision, kinds=["verdict", "superseding", "review"])
    actions.endpoint("refuse")
    actions.endpoint("gone")
    actions.endpoint("hang", timeout_s=1)
    actions.endpoint("inside", "http://169.254.169.254/latest/meta-data")
    actions.endpoint("of-globex", actions.receiver.url("other"), tenants=["globex"])
    actions.create_topics()
    blocked = actions.verdicts(60, decision="block")
    allowed = actions.verdicts(60, 100, decision="allow")
    superseding = actions.verdicts(20, 200, decision="allow", supersedes="f" * 32, superseded_decision="block")
    others = actions.verdicts(10, 300, keys=1_000, tenant_id="globex", decision="block")
    item = {**newest("review"), "verdict_id": f"{400:032x}", "text": TEXT, "decision": "review"}
    item_id = f"{400:032x}.review"
    producer = actions.producer()
    producer.produce(actions.topics.review, json.dumps(item).encode(), b"k")
    producer.produce(actions.topics.verdicts, b"not json", b"k")
    assert producer.flush(30) == 0
    wanted = [*blocked, *superseding, *others]
    worker = actions.worker("one")
    eventually(lambda: len(actions.receiver.calls("ok")) >= len(wanted) + len(allowed) + 1, "ok has everything")
    ok = {call["id"]: call["data"] for call in actions.receiver.calls("ok")}
    assert set(ok) == {*wanted, *allowed, item_id}
    assert not {"text", "context"} & ok[item_id].keys()
    eventually(lambda: len(actions.deliveries("refuse")) == len(wanted), "all are refused", 60)
    eventually(lambda: len(actions.deliveries("gone")) == len(wanted), "all are given up")
    eventually(lambda: {call["id"] for call in actions.receiver.calls("other")} == set(others), "the tenant's")
    assert len(actions.receiver.calls("gone")) <= 16
    assert actions.deliveries("hang") == actions.deliveries("inside") == []
    assert worker.metric('guardline_endpoint_gone{endpoint="gone"}') == 1
    eventually(lambda: worker.metric('guardline_endpoint_breaker_open{endpoint="inside"}') == 1, "it is not called")
    assert worker.metric('guardline_deliveries_waiting{endpoint="hang"}') == len(wanted)
    assert worker.metric('guardline_deliveries_total{endpoint="refuse",outcome="refused"}') == len(wanted)
    author = {"tenant_id": "globex", "author_id": newest("verdict")["author_id"]}
    request = {**author, "forget_id": "0" * 32, "requested_at": "2099-01-01T00:00:00Z"}
    producer.produce(actions.topics.forget, json.dumps(request).encode(), b"globex")
    assert producer.flush(30) == 0
    waiting, left = 'guardline_deliveries_waiting{endpoint="inside"}', len(wanted) - len(others)
    eventually(lambda: worker.metric(waiting) == left, "what waits of the author is not sent any more")
    worker.send(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert not any(secret in worker.text for secret in (SECRET, TEXT, "meta-data", "k1/", newest("verdict")["note"]))
    letters = actions.records(actions.undelivered("refuse"))
    reasons = Counter(dict(headers_of(letter))["reason"] for letter in letters)
    assert reasons == {b"refused": len(wanted), b"not_json": 1}
    letter = next(one for one in letters if dict(headers_of(one)).get("webhook-id") == wanted[0].encode())
    headers = {name: (value or b"").decode() for name, value in headers_of(letter)}
    assert (headers["status"], headers["attempts"], headers["endpoint"]) == ("422", "3", "refuse")
    assert headers["detail"].startswith("the endpoint answered 422")
    assert json.loads(letter.value())["data"]["verdict_id"] == wanted[0]
    again = ("actions", "redeliver", "--endpoint", "refuse")
    (actions.receiver.folder / "accept").touch()
    made = [*blocked, *superseding]
    said = f"{len(made)} made again; {len(others)} not made, because the author was forgotten; 1 that hold no delivery"
    assert said in actions.site.command(*again).stderr
    assert f"0 made again; {len(wanted)} delivered before" in actions.site.command(*again).stderr
    calls = [call["id"] for call in actions.receiver.calls("refuse") if call["status"] == 200]
    assert sorted(calls) == sorted(made)
    repeats = [one for one in actions.deliveries("refuse") if one["is_repeat"]]
    assert {one["id"] for one in repeats if one["outcome"] == "delivered"} == set(made)
    assert {one["id"] for one in repeats if one["outcome"] == "forgotten"} == set(others)
    tested = actions.site.command("actions", "test", "--endpoint", "ok")
    assert tested.stdout.startswith("ok answered 200 after ")
    assert actions.receiver.calls("ok")[-1]["id"].startswith("test-")
    assert "answered 410" in actions.site.command("actions", "test", "--endpoint", "gone", code=1).stdout
