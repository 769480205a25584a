"""`guardline forget` writes a request and says how far it has come; `guardline topics create` sets retention."""

from __future__ import annotations

import asyncio
import json
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from schemas.forget import Forget
from tests.reviewing import Desk, now_ms, review_item, verdict_id
from tests.site import Site, eventually
from workers.kafka.reader import read
from workers.policy.strikes import Decay, Standing
from workers.redis import client
from workers.redis.strikes import Author, StoredStrikes

pytestmark = pytest.mark.timeout(240)


def commit(site: Site, worker: str, topic: str, offset: int) -> None:
    """Commit offsets of all partitions as the group of this worker."""
    settings = site.settings()
    consumer = Consumer(
        {"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": f"{settings.kafka.group}.{worker}"}
    )
    try:
        partitions = range(settings.topics.partitions)
        consumer.commit(offsets=[TopicPartition(topic, number, offset) for number in partitions], asynchronous=False)
    finally:
        consumer.close()


def forget(site: Site, *flags: str, code: int = 0) -> dict[str, str]:
    """Run the command, and give the last column of its table by the first one."""
    run = site.command("forget", "--tenant", "acme", "--author", "u-17", *flags, code=code)
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in run.stdout.splitlines() if "│" in line]
    if code:
        assert "of review has not read the request after 0.6 s" in run.stderr
    return {row[0]: row[-1] for row in cells}


def test_a_request_is_written_and_the_command_says_what_has_acted_and_what_waits_for_its_retention(site: Site) -> None:
    settings = site.settings()
    topics = settings.topics
    site.create_topics(topics.forget)
    found = forget(site)
    (request,) = [
        Forget.model_validate_json(message.value() or b"")
        for message in read(settings.kafka, [topics.forget], from_beginning=True, follow=False)
        if message is not None and message.key() == b"acme|u-17"
    ]
    assert (request.tenant_id, request.author_id) == ("acme", "u-17")
    assert datetime.now(UTC) - datetime.fromisoformat(request.requested_at) < timedelta(minutes=5)
    assert {found["worker aggregates"], found["worker review"]} == {
        "the group has committed nothing: the worker has never run here"
    }
    # Seven days of retention, and seven of a segment.
    end = datetime.strptime(found[topics.inputs[0]], "until %Y-%m-%d %H:%M UTC at the latest").replace(tzinfo=UTC)
    assert timedelta(days=13.9) < end - datetime.now(UTC) < timedelta(days=14.1)
    assert found.keys() >= {*topics.inputs, topics.verdicts, topics.review, topics.dead_letters, topics.forget}
    assert topics.usage not in found

    commit(site, "review", topics.review, 1)
    commit(site, "aggregates", topics.forget, 100)
    found = forget(site, "--wait", "0.6", code=1)
    assert found["worker aggregates"] == "done"
    assert found["worker review"].startswith("waiting: ")
    commit(site, "review", topics.forget, 100)
    assert forget(site, "--wait", "60")["worker review"] == "done"


async def strikes(site: Site, author: str, *, write: bool = False) -> int:
    """Give the number of strikes that Redis has for an author; `write` stores one before."""
    settings = site.settings()
    redis = await client.connect(settings.redis)
    try:
        stored = StoredStrikes(redis, namespace=settings.redis.namespace, secret=settings.pseudonym_secret)
        if write:
            await stored.write({Author("acme", author): Standing(Decay(3_600_000, None), ((now_ms(), 1.0),))})
        (standing,) = await stored.read([Author("acme", author)])
        return len(standing.steps) if standing else -1
    finally:
        await redis.aclose()


def test_a_worker_that_was_down_does_not_hold_a_forgotten_author_and_other_authors_keep_their_items(site: Site) -> None:
    desk = Desk(site)
    desk.create_topics()
    for author in ("u-17", "u-18"):
        assert asyncio.run(strikes(site, author, write=True)) == 1
    desk.start()
    desk.send([review_item(1, now_ms()), review_item(2, now_ms(), author_id="u-18")])
    eventually(lambda: desk.waiting() == 2, "both items wait")
    assert desk.process is not None
    desk.process.send(signal.SIGKILL)
    desk.process.wait()
    # These are read after the request, whatever the order of the topics.
    desk.send([review_item(3, now_ms()), review_item(4, now_ms(), author_id="u-18")])
    found = forget(site, "--wait", "0.6", code=1)
    assert [asyncio.run(strikes(site, author)) for author in ("u-17", "u-18")] == [0, 1]
    assert found["worker review"].startswith("waiting: ")

    desk.start()
    eventually(lambda: desk.waiting() == 2, "the items of the other author wait", 90)
    states: dict[bytes, list[dict[str, Any] | None]] = {}

    def is_closed() -> bool:
        states.clear()
        for key, value in desk.records("review_state"):
            states.setdefault(key, []).append(value)
        return all(mentions(states[verdict_id(number).encode()][-1]) == set() for number in (1, 3))

    def mentions(state: dict[str, Any] | None) -> set[str]:
        return {word for word in ("message", "u-17") if word in json.dumps(state)}

    eventually(is_closed, "the items of the author are closed", 90)
    assert [mentions(state) for state in states[verdict_id(3).encode()]] == [set()], "it was never held"
    others = [states[verdict_id(number).encode()][-1] for number in (2, 4)]
    assert all("message" in json.dumps(state) and "u-18" in json.dumps(state) for state in others)
    assert desk.superseding() == {}


def test_existing_topics_get_the_retention_of_the_settings_only_if_asked_for(site: Site) -> None:
    site.create_topics()
    chat = site.settings().topics.inputs[0]
    site.environment["GUARDLINE_TOPICS__RETENTION"] = f'{{"{chat}": 24}}'
    said = f"differs: {chat} has retention.ms 604800000, and not 86400000: --alter changes it"
    for _ in range(2):
        lines = site.command("topics", "create").stdout.splitlines()
        assert [line for line in lines if line.startswith("differs")] == [said]
    assert (
        f"changed {chat}: retention.ms from 604800000 to 86400000" in site.command("topics", "create", "--alter").stdout
    )
    assert "differs" not in site.command("topics", "create").stdout
