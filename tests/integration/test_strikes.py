"""The author's strikes in decisions, from Redis to the verdict."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from tests.site import Site
from tests.stack import Stack
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
UNSAFE = "I hate everyone here, you are all idiots"


def put_strikes(site: Site, **counts: int) -> None:
    """Write what the aggregates worker writes."""
    strikes = parse_yaml("acme", POLICY, "policy").strikes
    assert strikes is not None
    rules, settings, now_ms = CompiledStrikes(strikes), site.settings(), int(time.time() * 1_000)
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
