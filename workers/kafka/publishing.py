"""Sends records beside the work, as an idempotent producer: what is sent never waits for Kafka."""

from __future__ import annotations

import asyncio
import math
import time

import structlog
from confluent_kafka import KafkaError, KafkaException, Message

from workers import telemetry
from workers.kafka import clients
from workers.kafka.topics import find
from workers.settings import Kafka
from workers.settings.kafka_properties import hidden_values
from workers.shown import without

log = structlog.get_logger(__name__)

MAX_WAITING = 10_000
"""How many records may wait for the brokers. Further ones are dropped and counted."""
POLL_S = 0.1
FLUSH_S = 5.0

SLOW_S = 3.0
"""If Kafka has stored none of the waiting records for this long, the log says so."""

SAY_AGAIN_S = 30.0
"""How often the log says that records wait or are lost: thousands may be lost at once."""


class Publisher:
    """One producer. All calls are made in one thread, but for the last flush.

    Guarantee: a record that was taken is written at least once, unless the process is killed, or the brokers do not
    store it within `clients.DELIVERY_S`. Records that were not written are counted. `publish` never blocks. At most
    `MAX_WAITING` records are in memory.
    """

    def __init__(self, kafka: Kafka) -> None:
        """Connect in the background.

        Raises:
            Misconfigured: librdkafka refuses the settings.
        """
        self._kafka = kafka
        self._producer = clients.producer(kafka)
        self._stored_at = time.monotonic()
        self._say_at = -math.inf
        self._lost = 0
        self._reason = ""
        telemetry.GATEWAY_UNPUBLISHED.set_function(lambda: len(self._producer))

    async def start(self, *topics: str) -> None:
        """Check that the topics exist.

        Raises:
            Unavailable: no broker answers.
            Misconfigured: a topic is missing, or the brokers refuse this client.
        """
        find(topics, await asyncio.to_thread(clients.present_topics, clients.admin(self._kafka), self._kafka))

    def publish(self, topic: str, key: bytes, value: bytes) -> None:
        """Take a record, or drop it if too many wait."""
        reason = f"{MAX_WAITING} records wait"
        try:
            if len(self._producer) < MAX_WAITING:
                self._producer.produce(topic, value, key, on_delivery=self._answered)
                return
        except (BufferError, KafkaException) as error:
            reason = str(error)
        self._lose("dropped", reason)

    async def serve(self) -> None:
        """Take the brokers' answers, until it is cancelled."""
        while True:
            self._producer.poll(0)
            self._say(time.monotonic())
            await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        """Wait for the brokers' answers, at most `FLUSH_S`."""
        if left := await asyncio.to_thread(self._producer.flush, FLUSH_S):
            log.warning("records were not published before the end", records=left)
            telemetry.GATEWAY_PUBLISHED.labels("dropped").inc(left)

    def _answered(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._stored_at = time.monotonic()
            telemetry.GATEWAY_PUBLISHED.labels("written").inc()
        else:
            self._lose("refused", f"{message.topic()}: {error.str()}")

    def _lose(self, result: str, reason: str) -> None:
        telemetry.GATEWAY_PUBLISHED.labels(result).inc()
        self._lost += 1
        self._reason = reason

    def _say(self, now: float) -> None:
        """Log once in a while that records wait or are lost."""
        waiting = len(self._producer)
        if not waiting:
            self._stored_at = now
        if now < self._say_at or not (self._lost or now - self._stored_at >= SLOW_S):
            return
        log.warning(
            "Kafka does not store the decisions of the gateway (gateway.publish, kafka.bootstrap_servers)",
            waiting=waiting,
            lost=self._lost,
            reason=without(hidden_values(self._kafka.properties), self._reason or self._producer.heard.reason or ""),
        )
        self._say_at = now + SAY_AGAIN_S
        self._lost, self._reason = 0, ""
