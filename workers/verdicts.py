"""Reads verdicts back: what a downstream service would do, for people and for checks."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, Message, TopicPartition

from workers.errors import Misconfigured
from workers.settings import Kafka

IDLE_S = 0.5


def read(kafka: Kafka, topics: list[str], *, from_beginning: bool, follow: bool) -> Iterator[Message | None]:
    """Give committed records of the topics, and None whenever nothing came for half a second.

    Without `follow` it ends at the offsets that were the end when it began. Reads outside any group and commits
    nothing. Only committed transactions are seen.

    Raises:
        Misconfigured: Kafka or a topic is not there.
    """
    consumer = Consumer(
        {
            **kafka.properties,
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": f"guardline-reader-{secrets.token_hex(4)}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": False,
            "log_level": 0,
        }
    )
    try:
        present = consumer.list_topics(timeout=10).topics
        ends: dict[tuple[str, int], int] = {}
        for topic in topics:
            if topic not in present:
                raise Misconfigured(f"topics: {topic} not found in Kafka: create it with: guardline topics create")
            for partition in present[topic].partitions:
                low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
                if high > low:
                    ends[(topic, partition)] = high
        start = OFFSET_BEGINNING if from_beginning else OFFSET_END
        consumer.assign(
            [TopicPartition(topic, partition, start) for topic in topics for partition in present[topic].partitions]
        )
        while follow or (from_beginning and ends):
            messages = consumer.consume(500, IDLE_S)
            for message in messages:
                if message.error() is None:
                    yield message
            for origin in list(ends):
                position = consumer.position([TopicPartition(*origin)])[0].offset
                if position >= ends[origin]:
                    del ends[origin]
            if not messages:
                yield None
    except KafkaException as error:
        raise Misconfigured(f"kafka.bootstrap_servers: {kafka.bootstrap_servers!r}: {error.args[0].str()}") from error
    finally:
        consumer.close()
