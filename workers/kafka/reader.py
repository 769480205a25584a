"""Reads verdicts back: what a downstream service would do, for people and for checks."""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from workers.errors import Misconfigured, Unavailable
from workers.kafka import causes, clients
from workers.kafka.topics import find
from workers.settings import Kafka

IDLE_S = 0.5

LOOK_AGAIN_S = 0.1


def read(kafka: Kafka, topics: list[str], *, from_beginning: bool, follow: bool) -> Iterator[Message | None]:
    """Give committed records of the topics, and None whenever nothing came for a while.

    Without `follow` it ends once the end of every partition was seen. Reads outside any group and commits nothing. Only
    committed transactions are seen. Waits for as long as the brokers are away.

    Raises:
        Unavailable: Kafka or a topic is not there.
        Misconfigured: Kafka refuses this client, or a topic may not be read.
    """
    consumer = clients.reader(kafka, follow=follow)
    try:
        present = clients.present_topics(consumer, kafka)
        find(topics, present)
        start = OFFSET_BEGINNING if from_beginning else OFFSET_END
        unread = {(topic, partition) for topic in topics for partition in present[topic].partitions}
        consumer.assign([TopicPartition(*origin, start) for origin in unread])
        while follow or unread:
            messages = consumer.consume(500, IDLE_S if follow else clients.TO_THE_END_S)
            for message in messages:
                failure = message.error()
                if failure is None:
                    yield message
                elif failure.code() == KafkaError._PARTITION_EOF:
                    unread.discard((str(message.topic()), int(message.partition() or 0)))
                elif failure.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise Misconfigured(f"topics: {message.topic()} may not be read: check the ACLs")
            if not messages:
                yield None
    except KafkaException as error:
        raise causes.failure(f"kafka: cannot read {', '.join(topics)}", error.args[0]) from error
    finally:
        consumer.close()


def wait_for_open_transactions(kafka: Kafka, topic: str) -> None:
    """Wait until readers see everything that was committed before this call.

    A transaction that is open hides all that others committed behind its first record. Blocks for at most three times
    the time that a transaction of this project may last.

    Raises:
        Unavailable: Kafka or the topic is not there, or a transaction is open for longer.
        Misconfigured: Kafka refuses this client.
    """
    deadline = time.monotonic() + 3 * kafka.transaction_timeout_s
    admin = clients.admin(kafka)
    present = clients.present_topics(admin, kafka)
    find([topic], present)
    partitions = [TopicPartition(topic, number) for number in present[topic].partitions]
    written = _ends(admin, partitions, IsolationLevel.READ_UNCOMMITTED)
    while True:
        visible = _ends(admin, partitions, IsolationLevel.READ_COMMITTED)
        if all(visible[partition] >= written[partition] for partition in written):
            return
        if time.monotonic() > deadline:
            raise Unavailable(f"kafka: a transaction on {topic} stays open: end the producer that began it")
        time.sleep(LOOK_AGAIN_S)


def _ends(admin: AdminClient, partitions: list[TopicPartition], level: IsolationLevel) -> dict[int, int]:
    latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # confluent-kafka gives it no type
    answers = admin.list_offsets(
        dict.fromkeys(partitions, latest), isolation_level=level, request_timeout=clients.ANSWER_S
    )
    try:
        return {partition.partition: answer.result().offset for partition, answer in answers.items()}
    except KafkaException as error:
        raise causes.failure("kafka: cannot read the ends of a topic", error.args[0]) from error
