"""Reads a part of one partition again, for a worker whose state is what it has read."""

from __future__ import annotations

import time
from collections.abc import Generator

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from workers.core.records import TopicPartition
from workers.errors import Unavailable
from workers.kafka import causes, clients
from workers.settings import Kafka

COUNT = 500
SILENT_S = 10.0
"""How long the brokers may give no record that is known to be there."""


def read_range(kafka: Kafka, origin: TopicPartition, first: int, end: int) -> Generator[list[Message], None, None]:
    """Yield the committed records from offset `first` up to `end`, which is left out, in order.

    Where the first ones are deleted, it begins with the earliest that the partition still has. The record at `end`
    exists, or did: a broker that does not have it yet, such as a follower or a new leader, is asked again. Reads
    outside any group, and commits nothing. Blocks.

    Raises:
        Unavailable: Kafka does not answer, or does not give the records.
        Misconfigured: Kafka refuses this client, or the user may not read the topic.
    """
    where = f"{origin.topic}/{origin.partition}"
    consumer = clients.reader(kafka, follow=False, wait_s=clients.TO_THE_END_S)
    try:
        consumer.assign([KafkaPartition(origin.topic, origin.partition, first)])
        heard_at = time.monotonic()
        while True:
            records: list[Message] = []
            for message in consumer.consume(COUNT, 0.5):
                failure = message.error()
                if failure is None:
                    if (message.offset() or 0) >= end:
                        yield records
                        return
                    records.append(message)
                elif failure.code() == KafkaError._PARTITION_EOF and (message.offset() or 0) >= end:
                    yield records
                    return
                elif failure.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    raise causes.not_allowed(f"topics: this user may not read {where}", f"READ on {origin.topic}")
            if records:
                heard_at = time.monotonic()
                yield records
            elif time.monotonic() > heard_at + SILENT_S:
                raise Unavailable(f"kafka: {where} gives no records from offset {first} on")
    except KafkaException as error:
        raise causes.failure(f"kafka: cannot read {where}", error.args[0]) from error
    finally:
        consumer.close()


def timestamp_of(message: Message) -> int | None:
    """Give Kafka's timestamp of a record, in milliseconds; None if it has none."""
    kind, timestamp_ms = message.timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp_ms
