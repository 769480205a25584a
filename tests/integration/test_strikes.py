"""The author's strikes in decisions, from Redis to the verdict."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from redis.asyncio import Redis

from tests import aggregates
from tests.aggregates import strikes
from tests.clear import UNSAFE
from tests.site import Site, eventually
from tests.stack import Stack
from workers.core.pseudonyms import Pseudonyms
from workers.policy.document import parse_yaml
from workers.policy.policy import CompiledPolicy
from workers.policy.strikes import CompiledStrikes, Contribution
from workers.redis.strikes import Author, StoredStrikes

POLICY = """
unsafe: review
strikes:
  window_hours: 720
rules:
  - {severity: Unsafe, min_strikes: 3, decision: block}
"""
NEWEST_VERDICT = max((Path(__file__).parents[1] / "fixtures" / "contracts" / "verdict").iterdir())


def put_strikes(site: Site, **counts: int) -> None:
    """Write what the aggregates worker writes."""
    counting = parse_yaml("acme", POLICY, "policy").strikes
    assert counting is not None
    rules, settings, now_ms = CompiledStrikes(counting), site.settings(), int(time.time() * 1_000)
    standings = {
        Author("acme", author): rules.standing([Contribution(str(n), now_ms, 1.0) for n in range(count)], now_ms)
        for author, count in counts.items()
    }

    async def write() -> None:
        async with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
            stored = StoredStrikes(redis, namespace=settings.redis.namespace, secret=settings.pseudonym_secret)
            await stored.write(standings)

    asyncio.run(write())


def send(site: Site, *authors: str | None) -> list[dict[str, Any]]:
    """Send one message of each author; return their verdicts."""
    events = [
        {"event_id": f"e{len(site.sent) + n}", "tenant_id": "acme", "surface": "chat", "text": UNSAFE, "author_id": one}
        for n, one in enumerate(authors)
    ]
    site.produce([(b"k", json.dumps(event).encode()) for event in events])
    outcome = site.check()
    return [outcome.by_position[position][0] for position in site.sent[-len(events) :]]


def test_three_strikes_block_and_without_redis_the_message_is_judged_without_them(site: Site, stack: Stack) -> None:
    site.create_topics()
    file = Path(site.folder.name) / "policy.yaml"
    file.write_text(POLICY)
    site.command("policy", "set", "acme", file)
    put_strikes(site, repeater=3, second=2)
    worker = site.worker()
    verdicts = send(site, "repeater", "second", "new", None)
    assert [(verdict["decision"], verdict.get("strikes")) for verdict in verdicts] == [
        ("block", 3),
        ("review", 2),
        ("review", 0),
        ("review", None),
    ]
    assert site.command("strikes", "show", "--tenant", "acme", "--author", "second").stdout == "2\n"
    run = site.command("strikes", "show", "--tenant", "acme", "--author", "new")
    assert (run.stdout, run.stderr) == ("0\n", "")
    run = site.command("strikes", "show", "--tenant", "acne", "--author", "second")
    assert (run.stdout, run.stderr.split(":")[0]) == ("0\n", "nothing of tenant 'acne' is known in Redis")
    stack.kill_redis()
    try:
        (unknown,) = send(site, "repeater")
    finally:
        stack.restart_redis()
    assert (unknown["decision"], unknown.get("strikes")) == ("review", None)
    assert worker.metric('guardline_strikes_looked_up_total{result="known"}') == 3
    assert worker.metric('guardline_strikes_looked_up_total{result="unknown"}') == 1

    # A replay needs the verdicts and the policy, and no Redis.
    policy = CompiledPolicy(parse_yaml("acme", POLICY, "policy"))
    for verdict in [*verdicts, unknown]:
        decision, reasons = policy.decide(verdict["assessment"], surface="chat", strikes=verdict.get("strikes"))
        assert (decision, [*reasons]) == (verdict["decision"], verdict["reasons"])


def test_the_message_after_the_third_strike_is_blocked(site: Site) -> None:
    """From the moderation worker through the aggregates worker and Redis back to the moderation worker."""
    topics = site.settings().topics
    site.create_topics(topics.signals, topics.forget)
    file = Path(site.folder.name) / "policy.yaml"
    file.write_text(POLICY)
    site.command("policy", "set", "acme", file)
    site.worker()
    aggregates.worker(site)
    verdicts = send(site, "repeater", "repeater", "repeater", "once")
    assert {verdict["decision"] for verdict in verdicts} == {"review"}
    eventually(
        lambda: (strikes(site, "repeater"), strikes(site, "once")) == (3, 1),
        "the strikes of three verdicts are in Redis",
    )
    (next_one, other) = send(site, "repeater", "once")
    assert (next_one["decision"], next_one["strikes"]) == ("block", 3)
    assert (other["decision"], other["strikes"]) == ("review", 1)


def test_a_simulation_counts_the_committed_verdicts_of_a_tenant_and_plots_them(site: Site) -> None:
    site.create_topics()
    settings = site.settings()
    template = json.loads(NEWEST_VERDICT.read_bytes())
    template |= {"decision": "block", "duplicate_of": None, "supersedes": None, "corrected": None, "tenant_id": "acme"}
    configuration = {"bootstrap.servers": settings.kafka.bootstrap_servers, "transactional.id": settings.kafka.group}
    producer = Producer(configuration)
    producer.init_transactions(30)

    def write(author: str, number: int, **changes: object) -> None:
        verdict = template | {"author_id": author, "verdict_id": f"{number:032x}", **changes}
        producer.produce(settings.topics.verdicts, json.dumps(verdict).encode(), b"k")

    producer.begin_transaction()
    for number, author in enumerate(["repeater"] * 4 + ["second"] * 2 + ["once"]):
        write(author, number)
    write("second", 20, supersedes=f"{4:032x}", superseded_decision="block", decision="allow", corrected=None)
    write("other", 21, tenant_id="other")
    producer.produce(settings.topics.verdicts, b"not a verdict", b"k")
    producer.commit_transaction(30)
    producer.begin_transaction()
    for number in range(30, 40):
        write("aborted", number)
    producer.flush(30)
    producer.abort_transaction(30)

    folder = Path(site.folder.name)
    (folder / "policy.yaml").write_text(POLICY.replace("  window_hours: 720", "  thresholds: [{name: three, at: 3}]"))
    simulate = ("strikes", "simulate", "--tenant", "acme", "--policy", folder / "policy.yaml")
    done = site.command(*simulate, "--json", "--top", "1", "--plot", folder / "strikes.svg")
    report = json.loads(done.stdout)
    assert (report["verdicts"], report["authors"], report["authors_with_strikes"]) == (8, 3, 3)
    assert [(line["name"], line["authors"]) for line in report["thresholds"]] == [("three", 1)]
    assert report["top"] == [{"pseudonym": Pseudonyms(settings.pseudonym_secret).of("acme", "repeater"), "strikes": 4}]
    assert "is not a verdict" in done.stderr
    assert "<svg" in (folder / "strikes.svg").read_text()

    site.command("policy", "set", "acme", folder / "policy.yaml")
    later = site.command("strikes", "simulate", "--tenant", "acme", "--since", "2100-01-01T00:00:00Z")
    assert later.stdout.startswith("0 verdicts of 0 authors")
    assert "three" in later.stdout
