"""Input topics that change under a worker: deleted, with more partitions, with records deleted before they are read."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from tests.site import Process, Site, eventually

pytestmark = pytest.mark.timeout(120)

FAULTY = (sys.executable, "-m", "tests.chaos.faulty_worker")


def admin(site: Site) -> AdminClient:
    return AdminClient({"bootstrap.servers": site.settings().kafka.bootstrap_servers})


def started(site: Site, *program: str, **changes: str) -> Process:
    worker = site.worker(*program, **changes)
    eventually(lambda: worker.has_partitions, "partitions")
    return worker


def delete_below(site: Site, offsets: dict[tuple[str, int], int]) -> None:
    """Delete records as retention does; those without an outcome no longer need one."""
    answered = site.outcome().by_position
    partitions = [TopicPartition(topic, n, offset) for (topic, n), offset in offsets.items()]
    client = admin(site)
    for gone in client.delete_records(partitions).values():
        gone.result(10)
    site.sent = [one for one in site.sent if one in answered or one[2] >= offsets.get(one[:2], 0)]


@pytest.mark.parametrize("is_working", [True, False])
def test_a_deleted_topic_ends_the_worker_with_its_name(site: Site, is_working: bool) -> None:
    site.create_topics()
    worker = started(site, *FAULTY, "lag", GUARDLINE_BATCH__MAX_COUNT="4", GUARDLINE_BATCH__IN_FLIGHT="1")
    site.events(200 if is_working else 4)
    eventually(lambda: site.answered() > 3, "first verdicts")
    topic = site.settings().topics.inputs[0]
    client = admin(site)
    client.delete_topics([topic])[topic].result(10)
    assert worker.wait(12) == 1, worker.text
    assert f"{topic} was deleted: create it again" in worker.text, worker.text


def test_new_partitions_are_read_within_half_a_minute(site: Site) -> None:
    site.create_topics()
    started(site)
    topic = site.settings().topics.inputs[0]
    client = admin(site)
    client.create_partitions([NewPartitions(topic, 6)])[topic].result(10)

    def delivered(error: object, message: Message) -> None:
        assert error is None, error
        site.sent.append((topic, 5, int(message.offset() or 0)))

    producer = Producer({"bootstrap.servers": site.settings().kafka.bootstrap_servers})

    def produce() -> bool:
        event = {"event_id": "e", "tenant_id": "acme", "surface": "chat", "text": "hello"}
        producer.produce(topic, json.dumps(event), b"room-1", partition=5, on_delivery=delivered)
        return producer.flush(10) == 0

    eventually(produce, "the new partition takes records")
    site.check(30)


def test_records_deleted_while_no_worker_ran_are_counted(site: Site) -> None:
    site.create_topics()
    worker = started(site)
    site.events(100)
    site.check()
    worker.send(signal.SIGTERM)
    worker.wait()
    before = site.committed()
    site.events(200, start=100)
    chat = site.settings().topics.inputs[0]
    gone = {origin: offset + 7 for origin, offset in before.items() if origin[0] == chat}
    delete_below(site, gone)
    again = started(site)
    site.check()
    eventually(lambda: again.metric("guardline_offsets_deleted_unread_total") == 7 * len(gone), "they are counted", 10)
    assert again.text.count("records were deleted before they were read") == len(gone)


def test_records_deleted_under_a_worker_that_is_behind_are_counted(site: Site) -> None:
    site.create_topics()
    gate = Path(site.folder.name) / "gate"
    marks = {"GUARDLINE_BATCH__LOW_WATER": "49", "GUARDLINE_BATCH__HIGH_WATER": "50"}
    worker = started(site, *FAULTY, "gate", str(gate), **marks)
    gate.touch()
    site.events(200, keys=1)
    eventually(lambda: worker.metric("guardline_uncommitted_records") == 50, "it has read what it may")
    eventually(lambda: worker.metric("guardline_intake_paused") == 1, "the intake is paused")
    (topic, n, _) = site.sent[0]
    taken_in = [position for position in site.sent if position[2] < 50]
    delete_below(site, {(topic, n): 120})
    site.sent += taken_in
    gate.unlink()
    site.check()
    assert worker.metric("guardline_offsets_deleted_unread_total") == 70


def test_a_group_with_expired_offsets_warns_at_start_that_it_judges_again(site: Site) -> None:
    site.create_topics()
    worker = started(site)
    site.events(40)
    site.check()
    assert "holds verdicts of this pipeline" not in worker.text
    worker.send(signal.SIGTERM)
    worker.wait()
    ids = {document["verdict_id"] for documents in site.outcome().by_position.values() for document in documents}
    group = site.settings().kafka.group
    eventually(lambda: is_deleted(site, group), "the group is gone, and its offsets with it")
    elsewhere = started(site, GUARDLINE_WORKER__PIPELINE="another", GUARDLINE_KAFKA__GROUP=f"{group}.other")
    assert "holds verdicts of this pipeline" not in elsewhere.text
    elsewhere.send(signal.SIGKILL)
    elsewhere.wait()
    again = started(site)
    assert "the group has no committed offsets, but" in again.text
    eventually(lambda: max(map(len, site.outcome().by_position.values())) > 1, "it judges again")

    def all_ids() -> list[str]:
        return [document["verdict_id"] for found in site.outcome().by_position.values() for document in found]

    eventually(lambda: sum(one in ids for one in all_ids()) == 80, "each verdict is there again, under its id")


def is_deleted(site: Site, group: str) -> bool:
    """Delete the group; a member that has just left may still be in it."""
    client = admin(site)
    return client.delete_consumer_groups([group])[group].exception(10) is None
