"""A test's own topics and workers on the shared stack, and the check that nothing is lost or duplicated."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tests.command import GUARDLINE, guardline, inheriting
from workers.kafka.intake import headers_of
from workers.kafka.reader import read
from workers.kafka.topics import create
from workers.settings import Settings, Topics

MOVING = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
}
"""What a broker that has just started says of a group."""


def eventually(condition: Callable[[], bool], what: str, deadline_s: float = 40) -> None:
    """Wait for a condition, never for a fixed time. An expensive condition is checked less often."""
    end = time.monotonic() + deadline_s
    while True:
        began = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        if now > end:
            raise AssertionError(f"after {deadline_s} s still not: {what}")
        time.sleep(min(max(0.05, now - began), 0.5))


@dataclass
class Process:
    """A worker as a process, with its output on standard error."""

    popen: subprocess.Popen[bytes]
    log: Path

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def wait(self, timeout_s: float = 40) -> int:
        return self.popen.wait(timeout_s)

    @property
    def text(self) -> str:
        return self.log.read_text()

    @property
    def has_partitions(self) -> bool:
        return any('"partitions": ["' in line for line in self.text.splitlines() if '"partitions assigned"' in line)

    @property
    def end(self) -> dict[str, Any]:
        """Return the line that says why the worker ended: there is exactly one, and it is the last of the log."""
        *before, last = [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]
        assert last["event"] == "worker ended", self.text
        assert all(line["event"] != "worker ended" for line in before)
        return dict(last)

    @property
    def address(self) -> str:
        """Return the host and the port of its probes and metrics."""
        served = next(line for line in self.text.splitlines() if "serving /livez" in line)
        return f"127.0.0.1:{json.loads(served)['port']}"

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and the text of an answer over HTTP."""
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=5) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            error.close()  # Python 3.14 warns about an answer that is not closed.
            return error.code, ""

    def metric(self, name: str) -> float:
        """Return the value of a metric, named with its labels as in /metrics. The label `group` may be left out."""
        line = re.compile(rf'{re.escape(name)}(\{{group="[^"]*"\}})? (\S+)')
        found = map(line.fullmatch, self.get("/metrics")[1].splitlines())
        return next(float(match[2]) for match in found if match)


@dataclass
class Outcome:
    """What a read_committed reader sees: for each input position its verdicts and dead letters.

    `reviewed` counts the review items of a position; `partitions` are those of an output topic that have a key. `usage`
    has the sums of the usage topic by tenant and minute: events, cache hits, tokens.
    """

    by_position: dict[tuple[str, int, int], list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    order: dict[tuple[str, int], list[tuple[str, int, int]]] = field(default_factory=lambda: defaultdict(list))
    partitions: dict[tuple[str, bytes | None], set[int]] = field(default_factory=lambda: defaultdict(set))
    reviewed: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    usage: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    verdicts: int = 0
    dead_letters: int = 0

    @property
    def judged(self) -> dict[tuple[str, str], list[int]]:
        """The verdicts by tenant and by the minute in which their events were read: their number, and their tokens."""
        found: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        for documents in self.by_position.values():
            for document in documents:
                if "verdict_id" in document:
                    minute = datetime.fromtimestamp(document["timings"]["received_at"] // 60_000 * 60, UTC)
                    total = found[(document["tenant_id"], minute.strftime("%Y-%m-%dT%H:%M:%SZ"))]
                    total[0] += 1
                    total[1] += (document["assessment"] or {}).get("tokens", 0)
        return found

    @property
    def to_review(self) -> dict[tuple[str, int, int], int]:
        """How often each position has to be in the review topic: once, where the verdict says so."""
        return {
            position: 1
            for position, documents in self.by_position.items()
            if any(document.get("decision") == "review" for document in documents)
        }


class Site:
    """The topics, group and namespace of one test."""

    def __init__(self, kafka: str, redis: str, partitions: int = 4) -> None:
        name = f"t{secrets.token_hex(4)}"
        self.folder = tempfile.TemporaryDirectory(prefix="guardline-test-")
        self.environment = {
            "GUARDLINE_KAFKA__BOOTSTRAP_SERVERS": kafka,
            "GUARDLINE_KAFKA__GROUP": name,
            "GUARDLINE_KAFKA__SESSION_TIMEOUT_S": "5",
            "GUARDLINE_REDIS__URL": redis,
            "GUARDLINE_REDIS__NAMESPACE": name,
            "GUARDLINE_TOPICS__INPUTS": json.dumps([f"{name}.chat", f"{name}.comments"]),
            **{
                f"GUARDLINE_TOPICS__{setting.upper()}": topic.replace("moderation", name, 1)
                for setting, topic in Topics()
                if isinstance(topic, str)
            },
            "GUARDLINE_TOPICS__PARTITIONS": str(partitions),
            "GUARDLINE_HTTP__PORT": "0",
            "GUARDLINE_GUARD__THREADS": "1",
        }
        self.processes: list[Process] = []
        self.sent: list[tuple[str, int, int]] = []
        self.has_topics = False

    def settings(self, **changes: str) -> Settings:
        before = dict(os.environ)
        os.environ.update({**self.environment, **changes})
        try:
            return Settings()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def use(self, protocol: str) -> None:
        """Use this group protocol."""
        self.environment["GUARDLINE_KAFKA__GROUP_PROTOCOL"] = protocol

    def create_topics(self, *others: str) -> None:
        """Create the topics of a moderation worker, and these others: each more takes time in every test."""
        topics = self.settings().topics
        create(self.settings(), [*topics.named, *topics.outputs, *others])
        self.has_topics = True

    def command(self, *arguments: str | Path, code: int = 0, **changes: str) -> subprocess.CompletedProcess[str]:
        return guardline(*arguments, code=code, environment={**self.environment, **changes})

    def worker(self, *program: str | Path, **changes: str) -> Process:
        """Start a worker; `program` replaces the command, to run one with another engine."""
        log = Path(self.folder.name) / f"worker-{len(self.processes)}.log"
        environment = {**os.environ, **self.environment, **changes}
        environment = {name: value for name, value in environment.items() if value != ""}
        with log.open("wb") as out, inheriting():
            popen = subprocess.Popen(
                program or (GUARDLINE, "worker", "moderation"), env=environment, stdout=out, stderr=out
            )
        process = Process(popen, log)
        self.processes.append(process)
        return process

    def produce(
        self, values: Iterable[tuple[bytes | None, bytes | None]], *, topic: int = 0, headers: Any = None
    ) -> None:
        """Send (key, value) pairs; their positions are what `outcome` has to answer, but for those of tombstones.

        `headers`: those of each record, or a function that gives those of a record by its number.
        """
        settings = self.settings()

        def delivered(error: object, message: Message) -> None:
            assert error is None, error
            if message.value() is not None:
                self.sent.append((str(message.topic()), int(message.partition() or 0), int(message.offset() or 0)))

        producer = Producer(
            {
                "bootstrap.servers": settings.kafka.bootstrap_servers,
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.max.bytes": 4_000_000,
            }
        )
        for number, (key, value) in enumerate(values):
            own = headers(number) if callable(headers) else headers
            producer.produce(settings.topics.inputs[topic], value, key, headers=own, on_delivery=delivered)
            producer.poll(0)
        assert producer.flush(30) == 0

    def events(
        self, count: int, start: int = 0, *, keys: int = 20, text: str = "good morning everyone {}", topic: int = 0
    ) -> None:
        """Send distinct events."""
        self.produce(
            (
                (
                    f"room-{number % keys}".encode(),
                    json.dumps(
                        {"event_id": f"e{number}", "tenant_id": "acme", "surface": "chat", "text": text.format(number)}
                    ).encode(),
                )
                for number in range(start, start + count)
            ),
            topic=topic,
        )

    def outcome(self) -> Outcome:
        settings = self.settings()
        outcome = Outcome()
        for message in read(settings.kafka, settings.topics.outputs, from_beginning=True, follow=False):
            if message is None:
                continue
            topic, partition = str(message.topic()), int(message.partition() or 0)
            if topic == settings.topics.usage:
                document = json.loads(message.value() or b"")
                total = outcome.usage[(document["tenant_id"], document["minute"])]
                for index, name in enumerate(("events", "cache_hits", "tokens")):
                    total[index] += document[name]
                continue
            outcome.partitions[(topic, message.key())].add(partition)
            if topic != settings.topics.dead_letters:
                document = json.loads(message.value() or b"")
                source = document["source"]
                position = (source["topic"], source["partition"], source["offset"])
                if topic == settings.topics.review:
                    outcome.reviewed[position] += 1
                    outcome.order[(topic, partition)].append(position)
                    continue
                outcome.verdicts += 1
            else:
                document = dict(headers_of(message))
                document["value"] = message.value()
                position = (
                    document["source.topic"].decode(),
                    int(document["source.partition"]),
                    int(document["source.offset"]),
                )
                outcome.dead_letters += 1
            outcome.by_position[position].append(document)
            outcome.order[(topic, partition)].append(position)
        return outcome

    def answered(self) -> int:
        return len(self.outcome().by_position)

    def committed(self) -> dict[tuple[str, int], int]:
        """Return the group's offset of each partition that has one. Waits for open transactions."""
        settings = self.settings()
        consumer = Consumer({"bootstrap.servers": settings.kafka.bootstrap_servers, "group.id": settings.kafka.group})
        try:
            topics = consumer.list_topics(timeout=10).topics
            wanted = [TopicPartition(topic, n) for topic in settings.topics.inputs for n in topics[topic].partitions]
            found: list[TopicPartition] = []

            def has_answer() -> bool:
                try:
                    found[:] = consumer.committed(wanted, 10)
                except KafkaException as error:
                    if error.args[0].code() not in MOVING:
                        raise
                    return False
                return True

            eventually(has_answer, "the group's coordinator answers")
            return {(one.topic, one.partition): one.offset for one in found if one.offset >= 0}
        finally:
            consumer.close()

    def check(self, deadline_s: float = 60, *, has_all_reviews: bool = True) -> Outcome:
        """Every position that was sent has exactly one visible output, in order within its partition and key.

        Every verdict with the decision `review` has one review item; `has_all_reviews` is False if a test deletes them.
        The usage topic counts every verdict once.
        No offset is committed without the outputs below it, and no output is visible without its offset.
        """
        outcome = Outcome()

        def is_complete() -> bool:
            nonlocal outcome
            outcome = self.outcome()
            # The parts of one transaction need not become visible at the same moment.
            return (
                len(outcome.by_position) >= len(self.sent)
                and (not has_all_reviews or outcome.reviewed.keys() >= outcome.to_review.keys())
                and (not self.settings().topics.usage or self._counted(outcome) >= outcome.verdicts)
            )

        try:
            eventually(is_complete, f"{len(self.sent)} positions answered", deadline_s)
        finally:
            offsets = self.committed()
            unanswered = set(self.sent) - set(outcome.by_position)
            lost = [(topic, n, offset) for topic, n, offset in unanswered if offset < offsets.get((topic, n), -1)]
            assert not lost, f"offsets were committed without their outputs: {lost}"
        eventually(lambda: self._has_offsets(outcome), "every output has its offset committed", 10)
        assert set(outcome.by_position) == set(self.sent)
        if has_all_reviews:
            assert outcome.reviewed == outcome.to_review
        if self.settings().topics.usage:
            judged = outcome.judged
            assert {place: events for place, (events, _, _) in outcome.usage.items()} == {
                place: count for place, (count, _) in judged.items()
            }
            for place, (_, cache_hits, tokens) in outcome.usage.items():
                # The verdicts do not say which of them reuse an assessment.
                assert tokens == judged[place][1] if cache_hits == 0 else tokens <= judged[place][1]
        scattered = {key: partitions for key, partitions in outcome.partitions.items() if len(partitions) != 1}
        assert not scattered, f"keys in several partitions: {scattered}"
        doubled = {position: len(found) for position, found in outcome.by_position.items() if len(found) != 1}
        assert not doubled, f"outputs of one position: {doubled}"
        for positions in outcome.order.values():
            last: dict[tuple[str, int], int] = {}
            for topic, partition, offset in positions:
                assert last.get((topic, partition), -1) < offset, "out of order"
                last[(topic, partition)] = offset
        return outcome

    @staticmethod
    def _counted(outcome: Outcome) -> int:
        return sum(events for events, _, _ in outcome.usage.values())

    def _has_offsets(self, outcome: Outcome) -> bool:
        offsets = self.committed()
        return all(offset < offsets.get((topic, part), -1) for topic, part, offset in outcome.by_position)

    def close(self) -> None:
        for process in self.processes:
            if process.popen.poll() is None:
                process.send(signal.SIGCONT)
                process.send(signal.SIGKILL)
            process.wait(10)
            print(f"--- {process.log.name}\n{process.text}")  # pytest shows it when the test failed
        self.folder.cleanup()
