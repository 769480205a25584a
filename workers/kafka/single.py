"""Sends single records from an event loop, each as soon as possible, and waits until Kafka has stored the record."""

from __future__ import annotations

import asyncio
import threading

from confluent_kafka import KafkaError, KafkaException, Message

from workers.core.records import Output
from workers.errors import Unavailable
from workers.kafka import clients
from workers.settings import Kafka

POLL_S = 0.2
"""How often the thread looks whether it has to end. It is woken by each answer of a broker."""


class SingleRecords:
    """An idempotent producer for the commands of a worker's users. Owned by the event loop.

    Guarantee: after `send`, the brokers have stored the record. If `send` raises, they may have stored it all the same:
    a repeat needs a key by which readers recognise it.
    """

    def __init__(self, kafka: Kafka, *, timeout_s: float) -> None:
        """Connect in the background. `timeout_s`: how long Kafka may take to store a record.

        Raises:
            Misconfigured: librdkafka refuses the settings.
        """
        self._producer = clients.producer(kafka, linger_ms=0, timeout_s=timeout_s)
        self._is_closed = False
        self._thread = threading.Thread(target=self._poll, name="single records", daemon=True)
        self._thread.start()

    async def send(self, output: Output) -> None:
        """Send one record. Does not block the event loop.

        Raises:
            Unavailable: Kafka did not confirm the record in time, or refuses it.
        """
        loop = asyncio.get_running_loop()
        stored: asyncio.Future[None] = loop.create_future()

        def answered(error: KafkaError | None, _: Message) -> None:
            loop.call_soon_threadsafe(_answer, stored, error)

        try:
            self._producer.produce(output.topic, output.value, output.key, on_delivery=answered)
        except BufferError:
            raise Unavailable(f"kafka: too many records wait for {output.topic}") from None
        except KafkaException as error:
            raise Unavailable(f"kafka: {output.topic} takes no record: {error.args[0].str()}") from error
        await stored

    async def close(self) -> None:
        """End the thread. Records that are not stored yet are dropped."""
        self._is_closed = True
        await asyncio.to_thread(self._thread.join)

    def _poll(self) -> None:
        while not self._is_closed:
            self._producer.poll(POLL_S)
        self._producer.purge()
        self._producer.poll(0)


def _answer(stored: asyncio.Future[None], error: KafkaError | None) -> None:
    if stored.done():
        return
    if error is None:
        stored.set_result(None)
    else:
        stored.set_exception(Unavailable(f"kafka: the record was not stored in time: {error.str()}"))
