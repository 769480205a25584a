"""Sends records as an idempotent producer, and says in one sentence what the brokers refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaError, Message

from workers.core.records import TopicPartition
from workers.errors import Fatal
from workers.kafka import causes, clients
from workers.settings import Kafka

Accepted = Callable[[TopicPartition, int], None]
"""Called with the partition and the offset of a record that a broker has taken."""


class Sending:
    """Sends records while its block runs. At the end of the block it waits until the brokers have answered for each.

    Guarantee: after the block, the brokers have accepted every record, or `check` raises. Not for several threads.
    """

    def __init__(self, kafka: Kafka, *, linger_ms: int = clients.LINGER_MS) -> None:
        """Connect in the background. `linger_ms`: how long a record may wait for others of its request.

        Raises:
            Misconfigured: librdkafka refuses the settings.
        """
        self._producer = clients.producer(kafka, linger_ms=linger_ms)
        self._refused: list[KafkaError] = []
        self.count = 0

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until every record was accepted or refused: for at most `clients.DELIVERY_S`."""
        self._producer.flush()

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        accepted: Accepted | None = None,
        headers: dict[str, str | bytes | None] | None = None,
    ) -> None:
        """Send one record. Blocks while the client's queue is full, which bounds how much waits for the brokers.

        Raises:
            KafkaException: the client refuses this record.
        """

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._refused.append(error)
            elif accepted is not None:
                accepted(
                    TopicPartition(str(message.topic()), int(message.partition() or 0)), int(message.offset() or 0)
                )

        while True:
            try:
                self._producer.produce(topic, value, key, headers=headers, on_delivery=delivered)
                break
            except BufferError:
                self._producer.poll(0.1)
        self.count += 1
        self._producer.poll(0)

    def wait(self, seconds: float) -> None:
        """Take the brokers' answers for some time."""
        self._producer.poll(seconds)

    @property
    def unanswered(self) -> int:
        """The number of records that no broker has accepted or refused yet."""
        return len(self._producer)

    @property
    def has_refusals(self) -> bool:
        """Whether the brokers refused a record."""
        return bool(self._refused)

    def check(self, setting: str = "topics.inputs", topics: str = "the input topics") -> None:
        """Check that the brokers refused nothing. `setting` and `topics` name where the records go.

        Raises:
            Misconfigured: this user may not write to the topic.
            Fatal: a record was refused, or Kafka stopped answering.
        """
        if not self._refused:
            return
        said = f"Kafka refused {len(self._refused)} of {self.count} records: {self._refused[0].str()}"
        if self._refused[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise causes.not_allowed(f"{setting}: {said}", f"WRITE on {topics}")
        raise Fatal(said)


def topic_of(inputs: Sequence[str], surface: str) -> str:
    """Return the first topic whose name ends in the surface (chat, comments), or the first topic."""
    return next((name for name in inputs if name.rstrip("s").endswith(surface)), inputs[0])
