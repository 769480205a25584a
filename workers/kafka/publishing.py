"""Sends records beside the work, as an idempotent producer: what is sent never waits for Kafka."""

from __future__ import annotations

import asyncio

import structlog
from confluent_kafka import KafkaError, KafkaException, Message

from workers import telemetry
from workers.kafka import clients
from workers.kafka.topics import find
from workers.settings import Kafka

log = structlog.get_logger(__name__)

MAX_WAITING = 10_000
"""How many records may wait for the brokers. Further ones are dropped and counted."""
POLL_S = 0.1
FLUSH_S = 5.0


class Publisher:
    """One producer. All calls are made in one thread, but for the last flush.

    Guarantee: a record that was taken is written at least once, unless the process is killed, or the brokers do not
    store it within `clients.DELIVERY_S`. Records that were not written are counted. `publish` never blocks.
    """

    def __init__(self, kafka: Kafka) -> None:
        """Connect in the background.

        Raises:
            Misconfigured: librdkafka refuses the settings.
        """
        self._kafka = kafka
        self._producer = clients.producer(kafka)

    async def start(self, *topics: str) -> None:
        """Check that the topics exist.

        Raises:
            Unavailable: no broker answers.
            Misconfigured: a topic is missing, or the brokers refuse this client.
        """
        find(topics, await asyncio.to_thread(clients.present_topics, clients.admin(self._kafka), self._kafka))

    def publish(self, topic: str, key: bytes, value: bytes) -> None:
        """Take a record, or drop it if too many wait."""
        try:
            if len(self._producer) < MAX_WAITING:
                self._producer.produce(topic, value, key, on_delivery=_answered)
                return
        except (BufferError, KafkaException) as error:
            log.warning("a record cannot be published", topic=topic, error=repr(error))
        telemetry.GATEWAY_PUBLISHED.labels("dropped").inc()

    async def serve(self) -> None:
        """Take the brokers' answers, until it is cancelled."""
        while True:
            self._producer.poll(0)
            await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        """Wait for the brokers' answers, at most `FLUSH_S`."""
        if left := await asyncio.to_thread(self._producer.flush, FLUSH_S):
            log.warning("records were not published before the end", records=left)
            telemetry.GATEWAY_PUBLISHED.labels("dropped").inc(left)


def _answered(error: KafkaError | None, message: Message) -> None:
    if error is None:
        telemetry.GATEWAY_PUBLISHED.labels("written").inc()
        return
    telemetry.GATEWAY_PUBLISHED.labels("refused").inc()
    log.warning("Kafka refused a record", topic=message.topic(), error=error.str())
