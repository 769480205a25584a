"""The Kafka thread serves any worker: a small one copies records, and two of them run in one process."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from tests.shown import shown
from tests.site import Site, eventually
from workers.core.reasons import Reason
from workers.core.records import Finished, Output, Record, Source
from workers.errors import Undecodable
from workers.kafka import topics
from workers.kafka.decoding import Decoding
from workers.kafka.intake import headers_of
from workers.kafka.loop import KafkaThread
from workers.kafka.reader import read
from workers.kafka.route import Route

COUNT = 400
LARGE = 60_000
"""Bytes of an output that its topic does not take."""


class Copying:
    """Reads texts and writes each of them to one topic, with a prefix. Finishes them in the opposite order."""

    def __init__(self, site: Site, name: str, inputs: list[str], output: str) -> None:
        settings = site.settings()
        dead = settings.topics.dead_letters
        self.route = Route(
            kafka=settings.kafka.model_copy(update={"group": f"{settings.kafka.group}.{name}"}),
            worker_id="copy",
            is_static=True,
            inputs=dict.fromkeys(inputs, "topics.inputs"),
            outputs={output: "topics.verdicts", dead: "topics.dead_letters"},
            dead_letters=dead,
        )
        self.name, self.output = name, output
        self.committed: list[Finished] = []
        self.ended: list[BaseException | None] = []
        self.thread: KafkaThread[tuple[Source, bytes]] = KafkaThread(
            self.route,
            topics.check(self.route),
            decode=Decoding(dead, self.read),
            submit=self.work,
            committed=self.committed.extend,
            ended=self.ended.append,
        )
        self.thread.start()

    def read(self, record: Record, source: Source) -> list[tuple[Source, bytes]]:
        if record.value is None or not record.value.isascii():
            raise Undecodable(Reason.NOT_UTF8, "not a text")
        return [(source, record.value)]

    def work(self, items: list[tuple[Source, bytes]]) -> None:
        self.thread.deliver(
            [
                Finished(source, (Output(self.output, b"k", f"{self.name}: {value.decode()}".encode()),))
                for source, value in reversed(items)
            ]
        )

    def end(self, *, is_drained: bool) -> None:
        if is_drained:
            self.thread.stop(20)
        else:
            self.thread.quit()
        self.thread.join(30)


def written(site: Site, topic: str) -> list[Any]:
    found = read(site.settings().kafka, [topic], from_beginning=True, follow=False)
    return [message for message in found if message is not None]


def limit(site: Site, topic: str) -> None:
    entry = ConfigEntry("max.message.bytes", str(LARGE // 2), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": site.settings().kafka.bootstrap_servers})
    admin.incremental_alter_configs([resource])[resource].result(30)


@pytest.mark.timeout(120)
def test_two_workers_of_one_process_write_each_record_exactly_once(site: Site) -> None:
    """Each has its own group, output and gauges. One of them ends without a last commit, and its successor goes on."""
    site.create_topics()
    chat, comments = site.settings().topics.inputs
    first_output, second_output = site.settings().topics.verdicts, site.settings().topics.review
    limit(site, first_output)
    first = Copying(site, "first", [chat], first_output)
    second = Copying(site, "second", [chat, comments], second_output)
    try:
        site.produce((b"k%d" % (n % 20), f"text {n}".encode()) for n in range(COUNT))
        eventually(lambda: bool(first.committed), "it commits")
        first.end(is_drained=False)
        assert isinstance(first.ended[0], Exception)
        site.produce((b"k%d" % (n % 20), f"text {n}".encode()) for n in range(COUNT, 2 * COUNT))
        site.produce([(b"k", b"\xff"), (b"k", b"x" * LARGE)])
        site.produce([(b"k", b"a comment")], topic=1)
        first = Copying(site, "first", [chat], first_output)
        texts = [f"text {n}" for n in range(2 * COUNT)]
        expected = {
            first_output: Counter(f"first: {text}" for text in texts),
            second_output: Counter(f"second: {text}" for text in [*texts, "a comment", "x" * LARGE]),
        }

        def copies(topic: str) -> Counter[str]:
            return Counter(message.value().decode() for message in written(site, topic))

        for topic, wanted in expected.items():
            eventually(lambda topic=topic, wanted=wanted: copies(topic) == wanted, f"{topic} is complete")  # type: ignore[misc]
        eventually(lambda: len(written(site, site.settings().topics.dead_letters)) == 3, "three dead letters")
        reasons = Counter(
            dict(headers_of(message))["reason"] for message in written(site, site.settings().topics.dead_letters)
        )
        assert reasons == {b"not_utf8": 2, b"output_too_large": 1}
        groups = {worker.route.group: worker for worker in (first, second)}
        assert {group: shown("guardline_assigned_partitions", group=group) for group in groups} == {
            first.route.group: 4,
            second.route.group: 8,
        }
        for group in groups:
            eventually(lambda group=group: shown("guardline_lag_records", group=group) == 0, "no lag")  # type: ignore[misc]
    finally:
        for worker in (first, second):
            worker.end(is_drained=True)
    assert first.ended == second.ended == [None]
    assert len(second.committed) == 2 * COUNT + 3
