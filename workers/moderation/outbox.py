"""The transactional producer: outputs and source offsets become visible together, or not at all.

Owned by the Kafka thread. The numbers are those of docs/guarantees.md. Between reading the group metadata (3) and the
commit (7) nothing may call `consume()`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from workers.errors import Fatal, Misconfigured
from workers.moderation.ledger import Ledger, Prefix
from workers.moderation.records import Finished, Output, dead_letter_headers
from workers.settings import Kafka

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 3
"""A prefix that was aborted this often will be aborted again: the process ends and the supervisor decides."""

RECORD_OVERHEAD_BYTES = 512
"""What a record batch adds to key, value and headers; generous, because too small a bound would abort."""

INCURABLE = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: "the topic does not exist: create it (guardline topics create)",
    KafkaError._UNKNOWN_TOPIC: "the topic does not exist: create it (guardline topics create)",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "this worker may not write to the topic: check its ACLs",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "this worker may not use its transactional id: check its ACLs",
    KafkaError.INVALID_RECORD: "the broker refuses the record: check the topic's settings",
}
"""Causes that no retry heals."""

FENCED = (
    "this worker was fenced: either another worker runs with the same worker.id in this group, or a transaction "
    "lasted longer than kafka.transaction_timeout_s. Nothing was lost: the owner of the partitions goes on from the "
    "last commit"
)


def producer_config(kafka: Kafka, worker_id: str) -> dict[str, Any]:
    """Give the producer's librdkafka configuration."""
    timeout_ms = int(kafka.transaction_timeout_s * 1000)
    return {
        "linger.ms": 5,
        "compression.type": "lz4",
        **kafka.properties,
        "bootstrap.servers": kafka.bootstrap_servers,
        "transactional.id": f"{kafka.group}.{worker_id}",
        "transaction.timeout.ms": timeout_ms,
        "message.timeout.ms": int(timeout_ms * 0.8),
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "delivery.report.only.error": True,
        "allow.auto.create.topics": False,
        "queue.buffering.max.messages": 1_000_000,
    }


class Outbox:
    """Commits finished prefixes.

    Guarantee: after `commit` returns True, every output of the prefix is visible to read_committed readers exactly
    once, and the offsets of its records are committed; after False nothing of it is visible. Blocks for as long as
    the transaction's timeout.
    """

    def __init__(self, kafka: Kafka, worker_id: str, dead_letters: str, max_bytes: dict[str, int]) -> None:
        self._dead_letters = dead_letters
        self._max_bytes = max_bytes
        self._timeout_s = kafka.transaction_timeout_s
        self._attempts = 0
        self._failed: dict[tuple[str, bytes | None, bytes | None], KafkaError] = {}
        self._producer = Producer(producer_config(kafka, worker_id))
        try:
            self._producer.init_transactions(30)
        except KafkaException as error:
            raise Misconfigured(f"kafka: transactions cannot be used: {error.args[0].str()}") from error

    def commit(self, ledger: Ledger, prefix: Prefix, consumer: Consumer, deadline: float | None = None) -> bool:
        """Run steps 3 to 7 for a prefix. `deadline` is a time.monotonic() value.

        False: aborted, the prefix is still in the ledger; call `consume()` once and take it again.

        Raises:
            Fatal: fenced, a cause that no retry heals, or the transaction's timeout is over.
        """
        deadline = min(deadline or float("inf"), time.monotonic() + self._timeout_s)
        records = [self._fit(ledger, record) for record in prefix.records()]
        self._failed.clear()
        try:
            metadata = consumer.consumer_group_metadata()  # 3
            self._until(deadline, self._producer.begin_transaction)  # 4
            self._produce(records, deadline)  # 5
            offsets = [KafkaPartition(topic, part, offset) for (topic, part), offset in prefix.positions().items()]
            self._until(
                deadline,
                lambda: self._producer.send_offsets_to_transaction(offsets, metadata, _left(deadline)),  # 6
            )
            self._until(deadline, lambda: self._producer.commit_transaction(_left(deadline)), is_commit=True)  # 7
        except KafkaException as error:
            self._abort(ledger, records, error)
            return False
        self._attempts = 0
        return True

    def _produce(self, records: Sequence[Finished], deadline: float) -> None:
        plain: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            for topic, key, value, headers in record.outputs:
                if headers is None:
                    plain.setdefault(topic, []).append({"key": key, "value": value})
                else:
                    self._until(
                        deadline,
                        lambda t=topic, k=key, v=value, h=headers: self._producer.produce(  # type: ignore[misc]
                            t, v, k, headers=h, on_delivery=self._on_delivery
                        ),
                    )
        # produce_batch drops headers without a word, hence the two ways; it is three times as fast.
        for topic, messages in plain.items():
            while messages:
                taken = self._producer.produce_batch(topic, messages, on_delivery=self._on_delivery)
                if taken < len(messages):
                    messages = [message for message in messages if "_error" in message]
                    error = messages[0].pop("_error")
                    for message in messages:
                        message.pop("_error", None)
                    if error.code() != KafkaError._QUEUE_FULL:
                        raise KafkaException(error)
                    self._wait(deadline)
                else:
                    messages = []

    def _wait(self, deadline: float) -> None:
        if time.monotonic() >= deadline:
            raise Fatal("the broker takes no more records: the transaction's timeout is over")
        self._producer.poll(0.05)

    def _until(self, deadline: float, call: Callable[[], Any], *, is_commit: bool = False) -> None:
        """Call until it succeeds, as long as the error says that the same call may be repeated."""
        while True:
            try:
                call()
                return
            except BufferError:
                self._wait(deadline)
            except KafkaException as error:
                cause: KafkaError = error.args[0]
                if cause.fatal():
                    raise Fatal(
                        f"{FENCED} ({cause.str()})" if _is_fencing(cause) else f"kafka: {cause.str()}"
                    ) from error
                if cause.txn_requires_abort() or not cause.retriable():
                    raise
                if time.monotonic() >= deadline:
                    if is_commit:
                        # Nobody knows whether it was committed: neither an abort nor a new producer may follow.
                        raise Fatal(
                            f"the commit is still pending after the transaction's timeout: {cause.str()}"
                        ) from error
                    raise

    def _abort(self, ledger: Ledger, records: Sequence[Finished], error: KafkaException) -> None:
        cause: KafkaError = error.args[0]
        try:
            self._producer.abort_transaction(self._timeout_s)
        except KafkaException as abort_error:
            raise Fatal(f"{FENCED} ({abort_error.args[0].str()})") from abort_error
        self._attempts += 1
        causes = list(self._failed.values()) or [cause]
        log.warning("transaction aborted", attempt=self._attempts, cause=str(causes[0]), records=len(records))
        self._replace_too_large(ledger, records)
        for failure in [*causes, cause]:
            if failure.code() in INCURABLE:
                raise Fatal(f"cannot write results: {INCURABLE[failure.code()]} ({failure.str()})") from error
        if self._attempts >= MAX_ATTEMPTS:
            raise Fatal(f"a transaction was aborted {self._attempts} times: {causes[0].str()}") from error

    def _replace_too_large(self, ledger: Ledger, records: Sequence[Finished]) -> None:
        refused = {key for key, cause in self._failed.items() if cause.code() == KafkaError.MSG_SIZE_TOO_LARGE}
        for record in records:
            if any((output.topic, output.key, output.value) in refused for output in record.outputs):
                ledger.replace(too_large(record, self._dead_letters))

    def _fit(self, ledger: Ledger, record: Finished) -> Finished:
        for output in record.outputs:
            size = len(output.key) + len(output.value) + RECORD_OVERHEAD_BYTES
            if size > self._max_bytes[output.topic] or (
                output.headers and size + _header_bytes(output) > self._max_bytes[output.topic]
            ):
                smaller = too_large(record, self._dead_letters)
                ledger.replace(smaller)
                return smaller
        return record

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and error.code() != KafkaError._PURGE_QUEUE:
            self._failed[(message.topic() or "", message.key(), message.value())] = error


TRUNCATED_BYTES = 65_536


def too_large(record: Finished, dead_letters: str) -> Finished:
    """Make the dead letter that stands for outputs which no broker takes: a beginning, the length and the digest."""
    largest = max(record.outputs, key=lambda output: len(output.value) + _header_bytes(output))
    detail = f"an output for {largest.topic} is larger than the broker takes"
    headers = [
        *dead_letter_headers(record.source, "output_too_large", detail),
        ("truncated.length", str(len(largest.value)).encode()),
        ("truncated.sha256", hashlib.sha256(largest.value).hexdigest().encode()),
    ]
    key = largest.key[:1024]
    return Finished(record.source, (Output(dead_letters, key, largest.value[:TRUNCATED_BYTES], headers),))


def _header_bytes(output: Output) -> int:
    return sum(len(name) + len(value or b"") for name, value in output.headers or ())


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())


def _is_fencing(error: KafkaError) -> bool:
    return error.code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED)
