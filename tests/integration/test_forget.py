"""`guardline forget` writes a request and says how far it has come; `guardline topics create` sets retention."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from schemas.forget import Forget
from tests.aggregates import Verdicts, counted, set_policy, strikes, verdict, worker
from tests.reviewing import Desk, now_ms, review_item, verdict_id
from tests.site import Site, eventually
from workers.actions.route import route_of
from workers.core.forgotten import Forgotten
from workers.core.records import TopicPartition
from workers.kafka import clients, forgetting
from workers.kafka.reader import read
from workers.kafka.topics import create

pytestmark = pytest.mark.timeout(240)


def commit(site: Site, worker: str, topic: str, offset: int) -> None:
    """Commit offsets of all partitions as the group of this worker."""
    settings = site.settings()
    consumer = Consumer(
        {"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": f"{settings.kafka.group}.{worker}"}
    )
    try:
        partitions = range(settings.topics.partitions)
        consumer.commit(offsets=[KafkaPartition(topic, number, offset) for number in partitions], asynchronous=False)
    finally:
        consumer.close()


ENDPOINT = {"name": "platform", "url": "https://platform.example", "secret_files": ["/nowhere/secret"]}
STATEMENTS = {
    "name": "dsa",
    "url": "https://database.example",
    "format": "dsa",
    "header_files": {"Authorization": "/nowhere/token"},
    "statements": {"reference": "Rules, 3", "explanation": "They forbid it.", "territorial_scope": ["EEA"]},
}


@contextmanager
def running(site: Site, name: str) -> Iterator[None]:
    """Let the group of an endpoint have a member."""
    settings = site.settings()
    route = next(route_of(one, settings) for one in settings.actions.endpoints if one.name == name)
    consumer = clients.consumer(route)
    try:
        consumer.subscribe([*route.inputs])
        eventually(lambda: bool(consumer.poll(0.1) or consumer.assignment()), "the member has partitions")
        yield
    finally:
        consumer.close()


def forget(site: Site, *flags: str, code: int = 0, is_known: bool = False) -> dict[str, str]:
    """Run the command, and give the last column of its table by the first one. `is_known`: the tenant has a policy."""
    run = site.command("forget", "--tenant", "acme", "--author", "u-17", *flags, code=code)
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in run.stdout.splitlines() if "│" in line]
    assert ("nothing of tenant 'acme' is known in Redis" in run.stderr) != is_known
    if code:
        assert "has not read the request after 0.6 s" in run.stderr
    return {row[0]: row[-1] for row in cells}


def test_a_request_is_written_and_the_command_says_what_has_acted_and_what_waits_for_its_retention(site: Site) -> None:
    settings = site.settings()
    topics = settings.topics
    site.create_topics(topics.forget, topics.review_state)
    found = forget(site)
    (request,) = [
        Forget.model_validate_json(message.value() or b"")
        for message in read(settings.kafka, [topics.forget], from_beginning=True, follow=False)
        if message is not None and message.key() == b"acme|u-17"
    ]
    assert (request.tenant_id, request.author_id) == ("acme", "u-17")
    assert datetime.now(UTC) - datetime.fromisoformat(request.requested_at) < timedelta(minutes=5)
    assert {found["worker aggregates"], found["worker review"]} == {forgetting.Progress.ABSENT}
    assert found["worker actions"] == "nothing to do: actions.endpoints is empty"
    assert found["worker moderation"] == "nothing to do"
    assert found["Redis, deduplication"].startswith("until dedup.event_ttl_s (86400 s) and dedup.content_ttl_s (86400")
    # Seven days of retention, and seven of a segment.
    end = datetime.strptime(found[topics.inputs[0]], "until %Y-%m-%d %H:%M UTC at the latest").replace(tzinfo=UTC)
    assert timedelta(days=13.9) < end - datetime.now(UTC) < timedelta(days=14.1)
    assert found.keys() >= {*topics.inputs, topics.verdicts, topics.review, topics.dead_letters, topics.forget}
    assert topics.usage not in found

    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    producer.produce(topics.review_state, b"{}", key=b"a state that a worker wrote before its group's offsets expired")
    assert producer.flush(30) == 0
    assert forget(site, "--wait", "0.6", code=1)["worker review"] == forgetting.Progress.DOWN

    commit(site, "review", topics.review, 1)
    commit(site, "aggregates", topics.forget, 100)
    site.environment["GUARDLINE_ACTIONS__ENDPOINTS"] = json.dumps([ENDPOINT, {**ENDPOINT, "name": "other"}, STATEMENTS])
    with running(site, "platform"):
        found = forget(site, "--wait", "0.6", code=1)
    assert found["worker actions, platform"].startswith("each process reads the request within a second")
    assert found["worker actions, other"].startswith("no worker runs now: a worker that starts reads the")
    assert found["worker actions, dsa"] == "nothing to do: statements of reasons name no author"
    assert found["worker aggregates"] == forgetting.Progress.DONE
    assert found["worker review"].startswith("waiting: ")
    commit(site, "review", topics.forget, 100)
    assert forget(site, "--wait", "60")["worker review"] == forgetting.Progress.DONE


def test_requests_are_read_once_and_all_again_if_the_topic_is_another_one(site: Site) -> None:
    settings = site.settings()
    site.create_topics(settings.topics.forget)
    requests = forgetting.Requests(settings)

    def newly_read() -> set[str]:
        requests.known = Forgotten()
        requests.read()
        authors = ("u-17", "u-18", "u-19")
        return {author for author in authors if requests.known.covers("acme", author, None, 0)}

    def send(author: str) -> None:
        now = datetime.now(UTC).isoformat()
        request = Forget(forget_id="0" * 32, tenant_id="acme", author_id=author, requested_at=now)
        forgetting.send(settings, request)

    send("u-17")
    send("u-18")
    assert newly_read() == {"u-17", "u-18"}
    send("u-19")
    assert newly_read() == {"u-19"}
    assert newly_read() == set()
    requests._next = dict.fromkeys(requests._next, 1_000)
    assert newly_read() == {"u-17", "u-18", "u-19"}, "the topic was made again, and does not have these offsets"


def mentions(state: dict[str, Any] | None) -> set[str]:
    return {word for word in ("message", "u-17", "u-18") if word in json.dumps(state)}


def test_workers_that_were_down_do_not_hold_a_forgotten_author_and_keep_the_data_of_others(site: Site) -> None:
    desk, writer, topics = Desk(site), Verdicts(site), site.settings().topics
    create(site.settings(), [topics.signals])
    desk.create_topics()
    set_policy(site)
    desk.start()
    aggregates = worker(site)

    def send(*numbers: int) -> None:
        """Write an item and a verdict on each: those with odd numbers are of the author u-17."""
        author = {number: "u-17" if number % 2 else "u-18" for number in numbers}
        desk.send([review_item(one, now_ms(), author_id=author[one]) for one in numbers], topics.review)
        writer.write([verdict(100 + one, author_id=author[one]) for one in numbers])

    send(1, 2)
    eventually(lambda: desk.waiting() == 2, "both items wait")
    eventually(lambda: counted(site) == {"u-17": 1, "u-18": 1}, "both verdicts are counted")
    eventually(lambda: (strikes(site, "u-17"), strikes(site, "u-18")) == (1, 1), "the strikes are in Redis")
    later = (TopicPartition(topics.forget, 0), 1_000_000)
    eventually(lambda: progress(site, later) == {"waiting"}, "both groups have committed")
    assert desk.process is not None
    for process in (desk.process, aggregates):
        process.send(signal.SIGKILL)
        process.wait()
    send(3, 4)
    found = forget(site, "--wait", "0.6", code=1, is_known=True)
    assert {found["worker review"], found["worker aggregates"]} == {forgetting.Progress.WAITING}
    assert (strikes(site, "u-17"), strikes(site, "u-18")) == (0, 1)

    desk.start()
    worker(site)
    eventually(lambda: counted(site) == {"u-18": 2}, "the verdicts on the other author are counted", 90)
    assert counted(site, "tenant") == {"": 4}
    states: dict[int, list[set[str]]] = {}

    def is_closed() -> bool:
        records = desk.records("review_state")
        for number in (1, 2, 3, 4):
            own = [state for key, state in records if key == verdict_id(number).encode()]
            states[number] = [mentions(state) for state in own]
        return len(states[4]) > 0 and all(states[number][-1:] == [set()] for number in (1, 3))

    eventually(is_closed, "the items of the author are closed", 90)
    assert states[3] == [set()], "the item that was read after the request never had content"
    assert states[2][-1] == states[4][-1] == {"message", "u-18"}
    eventually(lambda: desk.waiting() == 2, "the items of the other author wait")
    assert desk.superseding() == {}
    eventually(
        lambda: progress(site, position_of_request(site)) == {"has read the request"},
        "both groups have read the request",
        90,
    )
    assert (strikes(site, "u-17"), strikes(site, "u-18")) == (0, 2)


def position_of_request(site: Site) -> forgetting.Position:
    """Give the position of the only request."""
    settings = site.settings()
    (position,) = [
        (TopicPartition(str(message.topic()), message.partition() or 0), message.offset() or 0)
        for message in read(settings.kafka, [settings.topics.forget], from_beginning=True, follow=False)
        if message is not None
    ]
    return position


def progress(site: Site, position: forgetting.Position) -> set[str]:
    """Give the first word of how far each group is."""
    watch = forgetting.Watch(site.settings(), position)
    try:
        return {state.partition(":")[0] for state in watch.look().values()}
    finally:
        watch.close()


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
