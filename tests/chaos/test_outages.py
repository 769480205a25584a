"""Brokers, topics and Redis that fail under load: every position has exactly one visible output, in order."""

from __future__ import annotations

import json
import random
import signal
import socket
import struct
import sys
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from tests.site import Site, eventually
from tests.stack import Stack

pytestmark = pytest.mark.timeout(150)


def admin(site: Site) -> AdminClient:
    return AdminClient({"bootstrap.servers": site.settings().kafka.bootstrap_servers})


def lower(site: Site, topic: str, max_bytes: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(max_bytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    client = admin(site)
    for future in client.incremental_alter_configs([resource]).values():
        future.result(10)


def send_to_review(site: Site, tenant: str) -> None:
    policy = Path(site.folder.name) / "review.yaml"
    policy.write_text("safe: review\ncontroversial: review\nunsafe: review\n")
    site.command("policy", "set", tenant, policy)


def test_an_aborted_transaction_is_retried_and_duplicates_nothing(site: Site) -> None:
    """The broker refuses one record of a transaction: the worker aborts the transaction, and retries without it."""
    site.create_topics()
    send_to_review(site, "picky")
    worker = site.worker()
    eventually(lambda: worker.has_partitions, "partitions")
    lower(site, site.settings().topics.review, 4_000)
    site.events(300)
    text = random.Random(5).randbytes(5_000).hex()
    long = json.dumps({"event_id": "long", "tenant_id": "picky", "surface": "chat", "text": text}).encode()
    site.produce([(b"room-1", long)], headers=[("trace", b"\xff"), ("nothing", None)])
    refused = site.sent[-1]
    site.events(300, start=300)
    outcome = site.check()
    assert "transaction aborted" in worker.text
    assert worker.popen.poll() is None
    (letter,) = outcome.by_position[refused]
    assert letter["reason"] == b"output_too_large"
    assert (letter["trace"], letter["nothing"]) == (b"\xff", None)
    assert outcome.dead_letters == 1


def test_a_limit_lowered_under_load_ends_the_worker_and_the_next_one_keeps_every_verdict(site: Site) -> None:
    """The broker refuses the records of a batch together: none of them may be treated as too large."""
    site.create_topics()
    first = site.worker()
    eventually(lambda: first.has_partitions, "partitions")
    site.events(300)
    lower(site, site.settings().topics.verdicts, 4_000)
    site.events(2000, start=300)
    assert first.wait(60) == 1, first.text
    assert "max.message.bytes was lowered" in first.text
    site.worker()
    assert site.check().dead_letters == 0


def test_an_output_topic_deleted_under_load_ends_the_worker_and_loses_nothing(site: Site) -> None:
    site.create_topics()
    send_to_review(site, "acme")
    first = site.worker(GUARDLINE_KAFKA__TRANSACTION_TIMEOUT_S="4")
    eventually(lambda: first.has_partitions, "partitions")
    site.events(500)
    eventually(lambda: site.answered() > 0, "first verdicts")
    settings = site.settings()
    client = admin(site)
    for future in client.delete_topics([settings.topics.review]).values():
        future.result(10)
    site.events(500, start=500)
    assert first.wait(60) == 1, first.text
    # The client may learn that the topic was deleted, or only see that its records are not accepted.
    sentence = first.text.splitlines()[-1]
    assert "cannot write results" in sentence or "was aborted 3 times" in sentence, first.text
    assert settings.topics.review in sentence
    again = site.worker(GUARDLINE_WORKER__START_WITHIN_S="0")
    assert again.wait() == 1, "a missing topic is found at start"
    assert settings.topics.review in again.text
    site.create_topics()
    site.worker()
    site.check(has_all_reviews=False)


@pytest.mark.parametrize("count", [200, 2000])
def test_a_topic_created_again_with_fewer_or_more_records_loses_none(site: Site, count: int) -> None:
    """With more, the old position is one of the new topic as well: nothing goes back.

    The worker is frozen meanwhile, so that it meets the new topic with all its records.
    """
    site.create_topics()
    worker = site.worker(GUARDLINE_KAFKA__SESSION_TIMEOUT_S="40")
    site.events(600)
    site.check()
    worker.send(signal.SIGSTOP)
    client, topic = admin(site), site.settings().topics.inputs[0]
    client.delete_topics([topic])[topic].result(10)
    eventually(lambda: topic not in client.list_topics(timeout=10).topics, "it is gone")
    site.create_topics()
    site.sent.clear()
    site.events(count, start=600)
    worker.send(signal.SIGCONT)
    events = {f"e{number}" for number in range(600 + count)}

    def judged() -> list[str]:
        last = site.processes[-1]
        if last.popen.poll() is not None:
            assert "was deleted" in last.text, last.text
            site.worker()
        found = site.outcome().by_position.values()
        return [str(document.get("event_id")) for documents in found for document in documents]

    eventually(lambda: set(judged()) == events, "every event of the old and of the new topic is answered", 100)
    assert len(judged()) == len(events)


def test_a_redis_restarted_under_load_loses_no_verdict(site: Site, stack: Stack) -> None:
    site.create_topics()
    worker = site.worker()
    eventually(lambda: worker.has_partitions, "partitions")
    site.events(500)
    stack.kill_redis()
    try:
        site.events(500, start=500)
        site.check()
    finally:
        stack.restart_redis()
    site.events(300, start=1000)
    site.check()
    assert "redis does not answer" in worker.text
    assert worker.popen.poll() is None


@pytest.mark.parametrize("is_deduplicating", ["true", "false"])
def test_the_metric_shows_the_state_of_redis_without_events(site: Site, stack: Stack, is_deduplicating: str) -> None:
    site.create_topics()
    worker = site.worker(GUARDLINE_DEDUP__ENABLED=is_deduplicating)
    eventually(lambda: worker.has_partitions, "partitions")
    assert worker.metric("guardline_redis_up") == 1
    stack.kill_redis()
    try:
        eventually(lambda: worker.metric("guardline_redis_up") == 0, "it is away", 10)
    finally:
        stack.restart_redis()
    eventually(lambda: worker.metric("guardline_redis_up") == 1, "it is back", 10)


def supervise(site: Site) -> None:
    """Restart each worker that ended, as a supervisor does, until every position has an outcome."""

    def is_answered() -> bool:
        last = site.processes[-1]
        if last.popen.poll() is not None:
            assert last.popen.returncode == 1, last.text
            site.worker()
        return site.answered() >= len(site.sent)

    eventually(is_answered, f"{len(site.sent)} positions answered", 100)


def test_a_broker_restarted_under_load_loses_and_duplicates_nothing(site: Site, stack: Stack) -> None:
    """The worker may ride it out, or end when a transaction outlives its time."""
    site.create_topics()
    worker = site.worker()
    eventually(lambda: worker.has_partitions, "partitions")
    site.events(2000)
    eventually(lambda: site.answered() > 0, "first verdicts")
    stack.restart_kafka()
    site.events(300, start=2000)
    supervise(site)
    site.check()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_an_empty_list_of_brokers_ends_the_worker_and_loses_nothing(site: Site, stack: Stack, protocol: str) -> None:
    """A broker says so while it starts or stops; here it is struck off the list while it runs."""
    site.use(protocol)
    site.create_topics()
    worker = site.worker(GUARDLINE_KAFKA__PROPERTIES='{"topic.metadata.refresh.interval.ms": "200"}')
    eventually(lambda: worker.has_partitions, "partitions")
    site.events(500)
    site.check()  # With results to write, the transaction that fails may be what ends the worker.
    unregister_broker(stack)
    try:
        assert worker.wait() == 1, worker.text
    finally:
        stack.restart_kafka()
    assert "knows no broker any more" in worker.text.splitlines()[-1]
    site.events(300, start=500)
    supervise(site)
    site.check()


def unregister_broker(stack: Stack) -> None:
    """Send UnregisterBroker, which no client library does: header version 2, then the broker's id and no tags."""
    request = struct.pack(">hhihx", 64, 0, 1, -1) + struct.pack(">ix", 1)
    host, port = stack.kafka.split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = connection.recv(64)
    (error,) = struct.unpack_from(">h", answer, 13)
    assert error == 0, answer


def test_a_call_to_kafka_that_hangs_ends_the_worker_and_loses_nothing(site: Site) -> None:
    site.create_topics()
    hanging = site.worker(
        sys.executable, "-m", "tests.chaos.faulty_worker", "hang", GUARDLINE_KAFKA__TRANSACTION_TIMEOUT_S="2"
    )
    eventually(lambda: hanging.has_partitions, "partitions")
    site.events(300)
    assert hanging.wait() == 1, hanging.text
    assert "a call to Kafka has not returned" in hanging.text
    site.worker()
    site.check()


def test_a_broker_down_for_longer_than_a_transaction_ends_the_worker_with_that_sentence(
    site: Site, stack: Stack
) -> None:
    site.create_topics()
    # librdkafka does not keep every timeout that it is given: sometimes the worker detects the hang first.
    for _ in range(3):
        said = said_while_the_broker_is_away(site, stack)
        if "a call to Kafka has not returned" not in said:
            break
    assert "the brokers did not answer" in said
    supervise(site)
    site.check()


def said_while_the_broker_is_away(site: Site, stack: Stack) -> str:
    """Freeze the broker under a worker that writes; give what the worker said until it ended."""
    # So slow that it still has something to write when the broker goes.
    lag = (sys.executable, "-m", "tests.chaos.faulty_worker", "lag")
    worker = site.worker(
        *lag,
        GUARDLINE_KAFKA__TRANSACTION_TIMEOUT_S="2",
        GUARDLINE_BATCH__MAX_COUNT="16",
        GUARDLINE_BATCH__IN_FLIGHT="2",
    )
    eventually(lambda: worker.has_partitions, "partitions")
    site.events(3000)
    answered = site.answered()
    eventually(lambda: site.answered() > answered, "verdicts")
    with stack.frozen_kafka():
        assert worker.wait() == 1, worker.text
    return worker.text
