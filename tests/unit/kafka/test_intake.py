"""Errors that the consumer returns instead of records: those that pass, and those that end the worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import pytest
from confluent_kafka import KafkaError, Message
from confluent_kafka import TopicPartition as KafkaPartition

from infra.devstack.kafka import free_ports
from workers.core.ledger import Ledger
from workers.core.records import TopicPartition
from workers.errors import Fatal
from workers.kafka import clients
from workers.kafka.intake import Intake
from workers.kafka.route import Route, of_moderation
from workers.settings import Kafka, Settings


class FailingConsumer:
    """Returns one error after the other, because no broker can produce them on demand."""

    def __init__(self, *codes: int) -> None:
        self._codes = codes

    def consume(self, count: int, timeout_s: float) -> list[Message]:
        return [Message(topic="t", error=KafkaError(code)) for code in self._codes]


def route() -> Route:
    return of_moderation(Settings(kafka=Kafka(bootstrap_servers=f"127.0.0.1:{free_ports(1)[0]}")))


@pytest.fixture
def intake() -> Iterator[Intake]:
    intake = Intake(route(), [*route().inputs], Ledger(), lambda: None)
    consumer = intake.consumer
    yield intake
    consumer.close()


def test_errors_that_pass_do_not_end_the_worker(intake: Intake) -> None:
    """A message's error is made from its code only, and never says that it is retriable."""
    intake.consumer = FailingConsumer(  # type: ignore[assignment]  # what it says stands for the brokers
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    )
    assert intake.poll(10, 0) == []


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (KafkaError._FATAL, "cannot go on"),
        (KafkaError._MAX_POLL_EXCEEDED, "max_poll_interval_s"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "this user may not read t: .* READ on t"),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "this user may not join .* READ on the group"),
        (KafkaError._BAD_MSG, "cannot read t: "),
    ],
)
def test_errors_that_do_not_pass_end_the_worker_with_a_sentence(intake: Intake, code: int, sentence: str) -> None:
    intake.consumer = FailingConsumer(code)  # type: ignore[assignment]  # what it says stands for the brokers
    with pytest.raises(Fatal, match=sentence):
        intake.poll(10, 0)


STRANDED = '{"brokers": {"GroupCoordinator": {"source": "logical"}}}'
FINE = '{"brokers": {"a:1/1": {"source": "learned"}, "GroupCoordinator": {"source": "logical"}}}'
UNREADABLE = '{"client_id": "a"b"}'


def test_a_client_that_knows_no_broker_in_two_reports_ends_the_worker(intake: Intake) -> None:
    intake._on_statistics(STRANDED)
    assert intake.poll(1, 0) == []
    intake._on_statistics(STRANDED)
    with pytest.raises(Fatal, match="knows no broker"):
        intake.poll(1, 0)


@pytest.mark.parametrize("other", [FINE, UNREADABLE])
def test_a_report_of_brokers_or_an_unreadable_one_does_not_end_the_worker(intake: Intake, other: str) -> None:
    for report in (STRANDED, other, STRANDED, other):
        intake._on_statistics(report)
        assert intake.poll(1, 0) == []


def test_brokers_that_do_not_answer_do_not_end_the_worker(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an outage the client still knows the brokers' addresses: real statistics, with a port without a server."""
    reports: list[str] = []
    on_statistics = Intake._on_statistics

    def note(self: Intake, text: str) -> None:
        reports.append(text)
        on_statistics(self, text)

    monkeypatch.setattr(Intake, "_on_statistics", note)
    monkeypatch.setattr(clients, "STATISTICS_MS", 100)
    away = Intake(route(), [*route().inputs], Ledger(), lambda: None)
    try:
        while len(reports) < 5:
            assert away.poll(1, 0.05) == []
    finally:
        away.consumer.close()


class HeldConsumer:
    """Records paused partitions: a real consumer pauses only partitions that a group has assigned to it."""

    def __init__(self) -> None:
        self.paused: set[tuple[str, int]] = set()

    def pause(self, partitions: list[KafkaPartition]) -> None:
        self.paused |= {(partition.topic, partition.partition) for partition in partitions}

    def resume(self, partitions: list[KafkaPartition]) -> None:
        self.paused -= {(partition.topic, partition.partition) for partition in partitions}


@pytest.mark.parametrize("left_by", ["revoked", "lost", "assigned again"])
def test_a_partition_that_is_assigned_again_is_paused_again(intake: Intake, left_by: str) -> None:
    """It is not paused: if the worker believed that it was, the memory would grow."""
    real, held = intake.consumer, HeldConsumer()
    intake.consumer = held  # type: ignore[assignment]  # what it notes stands for the brokers
    parts = [KafkaPartition("t", 0), KafkaPartition("t", 1)]
    origins = [TopicPartition("t", 0), TopicPartition("t", 1)]
    intake._on_assign(real, parts)
    intake.hold(origins)
    assert held.paused == {("t", 0), ("t", 1)}
    intake.hold(origins[1:])
    assert held.paused == {("t", 1)}
    if left_by == "revoked":
        intake._on_revoke(real, parts[1:])
    elif left_by == "lost":
        intake._on_lost(real, parts[1:])
    held.paused.clear()  # As librdkafka does when a partition is revoked or assigned.
    intake._on_assign(real, parts[1:])
    intake.hold(origins[1:])
    assert held.paused == {("t", 1)}
    intake.hold([])
    assert held.paused == set()


@pytest.mark.parametrize("is_single", [False, True])
def test_a_worker_that_works_alone_ends_when_it_loses_its_partitions(*, is_single: bool) -> None:
    intake = Intake(replace(route(), is_single=is_single), [*route().inputs], Ledger(), lambda: None)
    real, parts = intake.consumer, [KafkaPartition("t", 0)]
    try:
        intake._on_assign(real, parts)
        intake._on_lost(real, parts)
        with pytest.raises(Fatal, match="no connection to the brokers for longer") if is_single else nullcontext():
            intake.poll(1, 0)
    finally:
        real.close()
