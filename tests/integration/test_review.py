"""The review worker with a real Kafka and real processes."""

from __future__ import annotations

import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, Producer

from tests.coop import Coop, action_callback
from tests.reviewing import Desk, address, now_ms, review_item, verdict_id
from tests.site import Site, eventually
from tests.stack import Stack
from workers.kafka import clients
from workers.kafka.topic_settings import MAX_BYTES, Difference, alter
from workers.review.rebuilding import rebuilt
from workers.review.reconcile import compare, repair

pytestmark = pytest.mark.timeout(240)

HOUR_MS = 3_600_000


def decide(client: httpx.Client, item: str, decision: str, key: str | None = None, **more: Any) -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post(f"/v1/items/{item}/decide", json={"decision": decision, **more}, headers=headers)


def verdict_of(number: int) -> dict[str, Any]:
    """Give the verdict of a review item."""
    return {name: value for name, value in review_item(number).items() if name not in ("text", "context")}


def send_verdict(site: Site, number: int) -> None:
    """Produce the verdict of a review item as if a minute had passed since."""
    settings = site.settings()
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    producer.produce(
        settings.topics.verdicts, json.dumps(verdict_of(number)).encode(), b"room", timestamp=now_ms() - 60_000
    )
    assert producer.flush(30) == 0


def newest(desk: Desk, item: str) -> dict[str, Any]:
    """Give the newest state of an item."""
    return [value for key, value in desk.records("review_state") if key.decode() == item and value][-1]


def test_the_way_of_items_from_their_arrival_to_superseding_verdicts(site: Site, stack: Stack) -> None:
    """One worker, and all that needs a real one."""
    coop, folder = Coop(), Path(site.folder.name)
    (folder / "coop.pem").write_bytes(coop.public_key)
    (folder / "policy.yaml").write_text("review: {retention_hours: 1}")
    desk = Desk(
        site, answer_s="2", coop__public_key_file=str(folder / "coop.pem"), coop__actions='{"action-block": "block"}'
    )
    desk.create_topics()
    site.command("policy", "set", "brief", folder / "policy.yaml")
    large = review_item(6, now_ms() - 2 * HOUR_MS, tenant_id="brief", author_id=None, text="")
    # As large as a moderation worker writes it: its state is larger.
    desk.send([{**large, "text": "x" * (999_800 - len(json.dumps(large)))}])
    desk.send([review_item(number, now_ms()) for number in range(6)])
    worker = desk.start(sys.executable, "-m", "tests.chaos.polling_review")
    desk.send([{**review_item(7, now_ms()), "schema_version": 99}])
    with desk.client("ana") as ana, desk.client("bob") as bob, desk.client("sue") as sue:
        expired = f"/v1/items/{verdict_id(6)}"
        eventually(lambda: sue.get(expired).json().get("closed_because") == "expired", "the tenant's hour is over")
        assert sue.get(expired).json()["content"] is None
        eventually(lambda: desk.waiting() == 6, "the items wait")
        first, second = (one.post("/v1/next", json={}).json() for one in (ana, bob))
        assert first["verdict_id"] != second["verdict_id"]
        assert first["content"]["text"].startswith("message ")

        clicks = [decide(ana, first["verdict_id"], "block", "click", note="A threat.") for _ in range(2)]
        assert [click.json()["current"] for click in clicks] == [clicks[0].json()["current"]] * 2
        (verdict,) = desk.superseding()[first["verdict_id"]]
        assert (verdict["decision"], verdict["decided_by"], verdict["note"]) == ("block", "ana", "A threat.")
        assert verdict["verdict_id"] == clicks[0].json()["current"]

        # Two people click in the same moment, on an item that nobody has on lease.
        free = next(verdict_id(n) for n in range(6) if verdict_id(n) not in (first["verdict_id"], second["verdict_id"]))
        with ThreadPoolExecutor(2) as threads:
            race = [*threads.map(lambda one: decide(one, free, "block"), (ana, sue))]
        assert sorted(answer.status_code for answer in race) == [200, 409]
        (loser,) = (answer.json() for answer in race if answer.status_code == 409)
        (winner,) = desk.superseding()[free]
        assert (loser["by"], loser["at"] > 0) == (winner["decided_by"], True)

        # Kafka does not answer a click. The same click again takes effect once.
        with stack.frozen_kafka():
            away = decide(bob, second["verdict_id"], "allow", "bob-click")
        assert (away.status_code, "Idempotency-Key" in away.json()["detail"]) == (503, True)
        eventually(lambda: decide(bob, second["verdict_id"], "allow", "bob-click").status_code == 200, "Kafka answers")
        assert len(desk.superseding()[second["verdict_id"]]) == 1

        # A callback of Coop comes twice.
        taken = {first["verdict_id"], second["verdict_id"], free}
        left = next(verdict_id(number) for number in range(6) if verdict_id(number) not in taken)
        body, headers = coop.signed(action_callback(left))
        for _ in range(2):
            answer = httpx.post(f"{desk.address}/v1/coop/callback", content=body, headers=headers, timeout=30)
            assert (answer.status_code, answer.json()["decision"]) == (200, "block")
        (theirs,) = desk.superseding()[left]
        assert (theirs["decision"], theirs["decided_by"][:5]) == ("block", "coop:")

        appeal = {"verdict_id": clicks[0].json()["current"], "reason": "It was a quote."}
        assert sue.post("/v1/appeals", json=appeal).json()["status"] == "appealed"
        assert decide(ana, first["verdict_id"], "allow").status_code == 403
        assert decide(bob, first["verdict_id"], "allow").status_code == 200
        (again,) = desk.superseding()[clicks[0].json()["current"]]
        assert (again["decision"], again["superseded_decision"], again["decided_by"]) == ("allow", "block", "bob")

        request = {
            "forget_id": "0" * 32,
            "tenant_id": "acme",
            "author_id": "u-17",
            "requested_at": "2026-11-28T14:00:00Z",
        }
        desk.send([request], site.settings().topics.forget)
        eventually(lambda: desk.waiting() == 0, "the items of the author are closed")
        states = {key.decode(): value for key, value in desk.records("review_state")}
        assert len(states) == 7
        assert "u-17" not in json.dumps(states)

    assert worker.metric('guardline_review_decisions_total{decision="block"}') == 3
    assert "message 1" not in worker.text
    assert worker.metric('guardline_dead_letters_total{reason="invalid_field"}') == 1
    viewed = [
        (record["by"], record["verdict_id"])
        for _, record in desk.records("audit")
        if record and record["action"] == "leased"
    ]
    worker.send(signal.SIGTERM)
    assert (worker.wait(), worker.end["state"], worker.end["uncommitted"]) == (0, "stopped", 0)
    assert set(viewed) == {("ana", first["verdict_id"]), ("bob", second["verdict_id"])}


def test_only_one_worker_works_and_what_is_missing_is_found_and_put_back(site: Site) -> None:
    desk = Desk(site, lease_s="1")
    desk.create_topics()
    topics = site.settings().topics
    too_small = [Difference(topics.review_state, MAX_BYTES, "", "1048588")]
    alter(clients.admin(site.settings().kafka), too_small)
    too_early = desk.start()
    assert too_early.wait() == 2
    assert f"topics.review_state: {topics.review_state} takes records of at most 1048588 bytes" in too_early.text
    said = site.command("topics", "create", "--alter").stdout
    assert f"changed {topics.review_state}: max.message.bytes from 1048588 to 2228248" in said
    assert said.count("max.message.bytes") == 1
    active = desk.start()
    desk.send([review_item(number, now_ms()) for number in range(2)])
    eventually(lambda: desk.waiting() == 2, "the items wait")
    with desk.client("ana") as ana:
        decided = ana.post("/v1/next", json={}).json()["verdict_id"]
        assert decide(ana, decided, "block").status_code == 200
        held = ana.post("/v1/next", json={}).json()["verdict_id"]
    with desk.client("bob") as bob:
        eventually(lambda: bob.post("/v1/next", json={}).status_code == 200, "the lease of ana is over")
    actions = [
        (record["action"], record["by"])
        for _, record in desk.records("audit")
        if record and record["verdict_id"] == held
    ]
    assert actions[-2:] == [("lease_ended", "guardline"), ("leased", "bob")]

    other = site.worker(*desk.command, GUARDLINE_WORKER__ID="other", GUARDLINE_WORKER__START_WITHIN_S="0")
    assert other.wait() == 1
    assert "another review worker (desk) works for the group" in other.text
    # Its successor by name cannot listen, and ends before it would fence the first one.
    with desk.client("sue") as sue:
        port = str(sue.base_url.port)
        same = site.worker(*desk.command, GUARDLINE_REVIEW__PORT=port)
        assert same.wait() == 2
        assert f"review.host and review.port: cannot listen on 127.0.0.1:{port}" in same.text
        assert sue.get(f"/v1/items/{held}").status_code == 200

    # An item that nothing is left of but its verdict, and a state whose superseding verdict got lost.
    lost, wrong = verdict_id(8), {**newest(desk, decided), "current": "f" * 32}
    send_verdict(site, 8)
    desk.send([review_item(8, now_ms())], topics.review)
    eventually(lambda: desk.waiting() == 2, "the item waits, beside the one whose lease is over")
    servers = site.settings().kafka.bootstrap_servers
    producer = Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random"})
    producer.produce(topics.review_state, json.dumps(wrong).encode(), decided.encode())
    producer.produce(topics.review_state, None, lost.encode())
    # Two verdicts whose items were deleted in time: one was decided, one was closed.
    for number in (9, 10):
        send_verdict(site, number)
    later = {**verdict_of(9), "verdict_id": "e" * 32, "decision": "block", "supersedes": verdict_id(9)}
    producer.produce(topics.verdicts, json.dumps(later).encode(), b"room")
    deletion = {"schema_version": 1, "verdict_id": verdict_id(10), "action": "deleted"}
    producer.produce(topics.audit, json.dumps(deletion).encode(), verdict_id(10).encode())
    assert producer.flush(30) == 0
    newer = desk.start()
    assert address(newer)
    assert active.wait() == 1
    assert "this worker was fenced" in active.text
    items = {item.verdict_id: item for item in rebuilt(site.settings())}
    found = compare(site.settings(), items, None)
    report = site.command("review", "reconcile", code=3).stdout
    assert report.count(": no item") == 1
    assert f"{lost}: no item" in report
    assert f"{decided}: no superseding verdict" in report
    site.command("review", "reconcile", "--repair")
    # Another person repairs what was found before.
    assert repair(site.settings(), items, found, None) == []
    repeated = 'guardline_review_commands_total{kind="republish",outcome="repeated"}'
    eventually(lambda: newer.metric(repeated) == 1, "the second repair changes nothing")
    eventually(lambda: desk.waiting() == 2, "the item waits again")
    eventually(lambda: len(desk.superseding()[decided]) == 2, "the verdict is written again")
    assert newest(desk, lost)["content"]["text"] == "message 8"
    again = site.command("review", "reconcile", "--repair").stdout.splitlines()
    assert [line.split(": ")[1] for line in again] == ["0 without an item", "0 without a superseding verdict"]

    send_verdict(site, 11)
    refused = site.command("review", "reconcile", "--repair", code=3)
    assert f"{verdict_id(11)}: topics.review has no such item" in refused.stderr
    assert [verdict["verdict_id"] for verdict in desk.superseding()[decided]].count("f" * 32) == 1
    listed = site.command("review", "list", "--json").stdout.splitlines()
    assert len(listed) == 3
    assert "message" not in "".join(listed)
    assert "no review item of tenant 'acne' is known" in site.command("review", "list", "--tenant", "acne").stderr
    assert json.loads(site.command("review", "show", decided).stdout)["status"] == "decided"

    # Whoever joins the group may have taken over: what is in the worker's memory may be old.
    group = f"{site.settings().kafka.group}.review"
    stranger = Consumer(
        {"bootstrap.servers": servers, "group.id": group, "partition.assignment.strategy": "cooperative-sticky"}
    )
    stranger.subscribe([topics.review, topics.review_commands, topics.forget])
    try:
        eventually(lambda: stranger.poll(0.1) is None and newer.popen.poll() is not None, "the worker ends")
    finally:
        stranger.close()
    assert newer.wait() == 1
    assert "another process may work for the group now" in newer.text
