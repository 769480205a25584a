"""The lag that Kafka's own tools and scalers see: the distance from the group's offset to the end of a partition."""

from __future__ import annotations

import json

import pytest
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from tests.site import Site, eventually

pytestmark = pytest.mark.timeout(120)

PARTITIONS = 4


def lags(site: Site) -> dict[tuple[str, int], int]:
    """Return the lag of every partition; the whole partition if the group has no offset, as scalers count."""
    admin = AdminClient({"bootstrap.servers": site.settings().kafka.bootstrap_servers})
    wanted = [TopicPartition(topic, n) for topic in site.settings().topics.inputs for n in range(PARTITIONS)]
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the library's own
    ends = {(one.topic, one.partition): end for one, end in admin.list_offsets(dict.fromkeys(wanted, latest)).items()}
    committed = site.committed()
    return {origin: end.result().offset - committed[origin] for origin, end in ends.items() if origin in committed}


def has_no_lag(site: Site) -> bool:
    found = lags(site)
    return len(found) == 2 * PARTITIONS and not any(found.values())


def transactional(site: Site) -> Producer:
    settings = site.settings()
    producer = Producer(
        {"bootstrap.servers": settings.kafka.bootstrap_servers, "transactional.id": f"{settings.kafka.group}.producer"}
    )
    producer.init_transactions(30)
    return producer


def send(site: Site, producer: Producer, count: int, *, partition: int, is_committed: bool) -> None:
    """Send a record in the open transaction, and wait until the broker has it."""

    def delivered(error: object, message: Message) -> None:
        assert error is None, error
        if is_committed:
            site.sent.append((str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)))

    topic = site.settings().topics.inputs[0]
    for number in range(count):
        event = {"event_id": f"{partition} {number}", "tenant_id": "acme", "surface": "chat", "text": f"hello {number}"}
        producer.produce(topic, json.dumps(event), f"room-{partition}", partition=partition, on_delivery=delivered)
    assert producer.flush(10) == 0


def test_a_topic_that_was_read_to_its_end_has_no_lag(site: Site) -> None:
    """With a transactional producer, and partitions that are unused, emptied, or have aborted records only."""
    site.create_topics()
    producer = transactional(site)
    producer.begin_transaction()
    send(site, producer, 5, partition=0, is_committed=True)
    producer.commit_transaction(30)
    producer.begin_transaction()
    send(site, producer, 3, partition=0, is_committed=False)
    send(site, producer, 3, partition=1, is_committed=False)
    producer.abort_transaction(30)
    site.events(20, topic=1)
    emptied = site.sent[-1][:2]
    admin = AdminClient({"bootstrap.servers": site.settings().kafka.bootstrap_servers})
    for gone in admin.delete_records([TopicPartition(*emptied, -1)]).values():
        gone.result(10)
    site.sent = [position for position in site.sent if position[:2] != emptied]
    worker = site.worker()
    eventually(lambda: has_no_lag(site), "the lag is zero")
    site.check()
    producer.begin_transaction()
    send(site, producer, 1, partition=0, is_committed=True)
    producer.commit_transaction(30)
    eventually(lambda: has_no_lag(site), "the lag is zero again")
    site.check()
    assert worker.popen.poll() is None


def test_no_offset_is_committed_behind_an_open_transaction(site: Site) -> None:
    site.create_topics()
    producer = transactional(site)
    producer.begin_transaction()
    send(site, producer, 5, partition=0, is_committed=True)
    producer.commit_transaction(30)
    site.worker()
    eventually(lambda: has_no_lag(site), "the lag is zero")
    begun_at = site.committed()[(site.settings().topics.inputs[0], 0)]
    producer.begin_transaction()
    send(site, producer, 5, partition=0, is_committed=True)
    other = Producer({"bootstrap.servers": site.settings().kafka.bootstrap_servers})
    other.produce(site.settings().topics.inputs[0], b"behind it", b"room-0", partition=0)
    assert other.flush(10) == 0
    site.sent.append((site.settings().topics.inputs[0], 0, begun_at + 5))
    site.events(20, topic=1)  # Other partitions continue, and each of their commits may include positions.
    others = [position for position in site.sent if position[0] != site.settings().topics.inputs[0]]
    eventually(lambda: set(others) <= set(site.outcome().by_position), "the others are judged")
    eventually(lambda: sum(lags(site).values()) == 6, "only what is behind the open transaction is left")
    assert site.committed()[(site.settings().topics.inputs[0], 0)] == begun_at
    producer.commit_transaction(30)
    site.check()
    eventually(lambda: has_no_lag(site), "the lag is zero again")
