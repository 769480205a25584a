"""What commands show of topics and policies: text of others, and partitions and topics that change meanwhile."""

from __future__ import annotations

import heapq
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from redis import Redis

from tests.command import GUARDLINE, inheriting
from tests.site import Site
from workers.core.records import TopicPartition
from workers.errors import Unavailable
from workers.kafka import merge, ranges, reader
from workers.kafka.ranges import read_range
from workers.kafka.reader import read

pytestmark = pytest.mark.timeout(180)


def test_the_default_policy_is_set_printed_listed_and_deleted(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "default.yaml"
    file.write_text("controversial: review\n")
    assert "the default policy: version " in site.command("policy", "default", file).stdout
    assert yaml.safe_load(site.command("policy", "default").stdout)["controversial"] == "review"
    assert "(all tenants that have none)" in site.command("policy", "list").stdout
    site.command("policy", "set", "acme", file)
    assert site.command("policy", "list", "--names").stdout == "acme\n"
    assert "the strict default decides" in site.command("policy", "default", "--delete").stdout
    assert "no default policy is set" in site.command("policy", "default", code=2).stderr
    assert "guardline policy default" in site.command("policy", "set", "", file, code=2).stderr


EVIL = "a\x1b]0;title\x07\x9b31m\nguardline: fine\u202e"
"""What a sender may write to the terminal of whoever looks: a title, a colour, another line, a reversed text."""


def test_text_of_senders_cannot_steer_a_terminal_in_any_command(site: Site, tmp_path: Path) -> None:
    site.create_topics()
    settings = site.settings()
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    fields = ("decision", "tenant_id", "surface", "event_id", "duplicate_of")
    verdict = {**dict.fromkeys(fields, EVIL), "assessment": {"severity": EVIL, "categories": [EVIL]}}
    producer.produce(settings.topics.verdicts, json.dumps(verdict, ensure_ascii=False))
    headers = {"reason": EVIL, "detail": EVIL, "source.topic": EVIL, "source.partition": "0", "source.offset": "1"}
    producer.produce(settings.topics.dead_letters, EVIL.encode(), EVIL, headers=list(headers.items()))
    assert producer.flush(30) == 0
    with Redis.from_url(settings.redis.url.get_secret_value()) as redis:
        for tenant, document in ((EVIL, {"id": EVIL, "version": 1}), ("broken", {"id": EVIL})):
            redis.hset(f"{settings.redis.namespace}:{{policies}}", tenant, json.dumps(document))
    file = tmp_path / "events.jsonl"
    file.write_text(f"{json.dumps({'tenant_id': EVIL, 'surface': EVIL, EVIL: 1})}\n{EVIL}\n")
    commands: list[tuple[str | Path, ...]] = [
        ("verdicts",),
        ("verdicts", "--json"),
        ("dead-letters", "--value"),
        ("policy", "list"),
        ("policy", "get", EVIL),
        ("policy", "get", "broken"),
        ("produce", file),
        ("worker", "remove", "--id", EVIL),
    ]
    with inheriting():
        runs = [
            subprocess.Popen(
                [GUARDLINE, *command],
                env={**os.environ, **site.environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            for command in commands
        ]
    outputs = [run.communicate(timeout=100)[0].decode() for run in runs]
    for command, said in zip(commands, outputs, strict=True):
        assert "title" in said or command[0] == "produce", (command, said)
        assert "Traceback" not in said
        assert all(line.isprintable() for line in said.split("\n")), (command, said)
        assert "\nguardline: fine" not in said, command


def test_records_of_all_partitions_are_read_in_the_order_of_their_times(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a partition has so much that it is paused, and where one is empty."""
    site.create_topics()
    settings = site.settings()
    topic = settings.topics.verdicts
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    now = int(time.time() * 1000)
    times = {0: range(now, now + 400), 1: range(now + 399, now, -7), 2: range(now + 4_000, now - 100, -1_000)}
    for partition, stamps in times.items():
        for number, stamp in enumerate(stamps):
            producer.produce(topic, str(number), partition=partition, timestamp=stamp)
    assert producer.flush(30) == 0
    pairs = ([(partition, stamp) for stamp in stamps] for partition, stamps in times.items())
    expected = [*heapq.merge(*pairs, key=lambda pair: pair[1])]
    for full in (merge.FULL_BYTES, 20 * merge.RECORD_BYTES):
        monkeypatch.setattr(merge, "FULL_BYTES", full)
        records = read(settings.kafka, [topic], from_beginning=True, follow=False)
        found = [(one.partition(), one.timestamp()[1]) for one in records if one is not None]
        assert found == expected


def test_followed_verdicts_include_added_partitions_and_end_with_the_topic(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(reader, "LOOK_AGAIN_S", 0.1)
    site.create_topics()
    settings = site.settings()
    topic = settings.topics.verdicts
    at: Any = {"bootstrap.servers": settings.kafka.bootstrap_servers}
    admin, producer = AdminClient(at), Producer(at)
    records = read(settings.kafka, [topic], from_beginning=False, follow=True)
    assert next(records) is None
    deadline = time.monotonic() + 40
    admin.create_partitions([NewPartitions(topic, 6)])[topic].result(30)
    while 5 not in producer.list_topics(topic, 10).topics[topic].partitions:
        assert time.monotonic() < deadline
    producer.produce(topic, b"{}", partition=5)
    assert producer.flush(30) == 0
    found = next(message for message in records if message is not None or time.monotonic() > deadline)
    assert found is not None
    assert found.partition() == 5
    admin.delete_topics([topic])[topic].result(30)
    with pytest.raises(Unavailable, match=f"{topic} not found"):
        next(message for message in records if message is not None or time.monotonic() > deadline)


def test_a_broker_that_does_not_have_all_records_yet_never_ends_a_reading_too_early(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower, or a new leader, may know an earlier end than the leader that was asked for it."""
    site.create_topics()
    kafka, topic = site.settings().kafka, site.settings().topics.verdicts
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})

    def produce(*values: bytes) -> None:
        for value in values:
            producer.produce(topic, value, partition=0)
        assert producer.flush(30) == 0

    def part() -> list[bytes | None]:
        return [one.value() for batch in read_range(kafka, TopicPartition(topic, 0), 0, 3) for one in batch]

    def whole() -> list[bytes | None]:
        records = read(kafka, [topic], from_beginning=True, follow=False, until={(topic, 0): 4})
        return [one.value() for one in records if one is not None]

    produce(b"0", b"1")
    with monkeypatch.context() as patched:
        patched.setattr(ranges, "SILENT_S", 0.2)
        patched.setattr(reader, "SHORT_S", 0.2)
        with pytest.raises(Unavailable, match="gives no records"):
            part()
        with pytest.raises(Unavailable, match="does not reach the end"):
            whole()
    produce(b"2", b"3")
    assert part() == [b"0", b"1", b"2"]
    assert whole() == [b"0", b"1", b"2", b"3"]
