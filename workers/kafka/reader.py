"""Reads verdicts back: what a downstream service would do, for people and for checks."""

from __future__ import annotations

from collections.abc import Iterator

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, KafkaException, Message, TopicPartition

from workers.errors import Misconfigured
from workers.kafka import causes, clients
from workers.kafka.topics import find
from workers.settings import Kafka

IDLE_S = 0.5


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
