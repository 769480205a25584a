"""The transactional producer: outputs and source offsets become visible together, or not at all.

Owned by the Kafka thread. The numbers are the steps of docs/guarantees.md. No code may call `consume()` between reading
the group metadata (3) and the commit (7).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition
from msgspec.structs import replace

from workers import telemetry
from workers.core.dead_letters import MIN_DEAD_LETTER_BYTES, OUTPUT_TOO_LARGE, RECORD_OVERHEAD_BYTES, size_of, too_large
from workers.core.ledger import Ledger, Prefix
from workers.core.records import NOTHING_LOST, Finished, Output
from workers.core.usage import MIN_USAGE_BYTES, Mark, outputs_of
from workers.errors import Fatal, Misconfigured, Unavailable
from workers.kafka.route import Route
from workers.kafka.topic_watch import DELETED
from workers.kafka.transactions import AWAY, ProducerSession

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 3
"""After this many aborts of a prefix, another attempt would fail too: the process ends, and the supervisor decides."""

MAX_ATTEMPTS_OUTSIDE = 12
"""The limit for a worker that the group has removed: by then its consumer has sent about three heartbeats."""

RETRY_S = 0.05
MAX_RETRY_S = 0.4
"""Between two attempts of a call that a broker refused at once, as it does while it starts; doubled each time."""

PURGED = (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT)
"""Records that an abort discarded; they do not explain the abort."""

OUTSIDE = {
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.FENCED_MEMBER_EPOCH,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.STALE_MEMBER_EPOCH,
    KafkaError.UNKNOWN_MEMBER_ID,
}
"""The group goes on without this worker. Its consumer learns why at the next heartbeat, and joins again or ends."""

INCURABLE = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: "a topic does not exist: create it (guardline topics create)",
    KafkaError._UNKNOWN_TOPIC: "a topic does not exist: create it (guardline topics create)",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "this user may not write to the topic: the ACLs have to give it WRITE",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: (
        "this user may not use its transactional id: the ACLs have to give it WRITE"
    ),
    KafkaError.INVALID_RECORD: "the broker refuses the record: check the topic's settings",
}
"""Causes that no retry can fix."""

FENCED = (
    "this worker was fenced: either another worker runs with the same worker.id in this group, or a transaction "
    f"lasted longer than kafka.transaction_timeout_s. {NOTHING_LOST}"
)

FENCED_SINGLE = (
    "this worker was fenced: another one has started, and only one of this group may work. Or a transaction lasted "
    f"longer than kafka.transaction_timeout_s. {NOTHING_LOST}"
)

LIMIT_LOWERED = (
    "the broker refuses records that {topic} took when this worker started. Either its max.message.bytes was lowered: "
    "the next start reads it again. Or another limit is lower: set message.max.bytes in kafka.properties"
)


Shrink = Callable[[Finished, Mapping[str, int]], Finished | None]
"""Makes the outputs of a record fit into their topics, whose limits are in bytes. None: they cannot."""


def never(_: Finished, __: Mapping[str, int]) -> None:
    """Shrink nothing: a record whose outputs are too large becomes a dead letter."""


class Outbox:
    """Commits finished prefixes.

    Guarantee: after `commit` returns True, every output of the prefix, and its usage, is visible to read_committed
    readers exactly once, and the offsets of its records are committed. After False none of them is visible. Blocks for
    up to the transaction's timeout.
    """

    def __init__(self, route: Route, max_bytes: dict[str, int], shrink: Shrink, mark: Mark | None) -> None:
        self._dead_letters = dead_letters = route.dead_letters
        self._usage = route.usage
        self._shrunk = shrink
        self._mark = mark
        self._max_bytes = max_bytes
        self._surely_fits = min(max_bytes.values()) - RECORD_OVERHEAD_BYTES
        self._timeout_s = route.kafka.transaction_timeout_s
        self._attempts = 0
        self._attempts_outside = 0
        self._failed: list[tuple[KafkaError, Message]] = []
        if max_bytes[dead_letters] < MIN_DEAD_LETTER_BYTES:
            raise Misconfigured(
                f"{route.setting_of(dead_letters)}: {dead_letters} takes {max_bytes[dead_letters]} bytes; a dead "
                f"letter may need {MIN_DEAD_LETTER_BYTES}: raise the topic's max.message.bytes"
            )
        if self._usage and max_bytes[self._usage] < MIN_USAGE_BYTES:
            raise Misconfigured(
                f"topics.usage: {self._usage} takes {max_bytes[self._usage]} bytes; a record of it may need "
                f"{MIN_USAGE_BYTES}: raise the topic's max.message.bytes"
            )
        self._fenced = FENCED_SINGLE if route.is_single else FENCED
        self._session = ProducerSession(route.kafka, route.producer_id, max_bytes, is_single=route.is_single)

    @property
    def _producer(self) -> Producer:
        return self._session.producer

    def commit(self, ledger: Ledger, prefix: Prefix, consumer: Consumer, deadline: float | None = None) -> bool:
        """Run steps 3 to 7 for a prefix. `deadline` is a time.monotonic() value.

        False: aborted, and the prefix is still in the ledger; call `consume()` once and take it again.

        Raises:
            Fatal: fenced, a cause that no retry can fix, or the transaction's timeout is over.
        """
        deadline = min(deadline or float("inf"), time.monotonic() + self._timeout_s)
        for _, run in prefix.values():
            for index, record in enumerate(run):
                if not self._fits(record):
                    run[index] = self._shrink(ledger, record)
        records = list(prefix.records())
        self._failed.clear()
        if not self._is_ready(deadline):
            return False
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
            self._abort(ledger, prefix, error)
            return False
        self._attempts = self._attempts_outside = 0
        return True

    def _is_ready(self, deadline: float) -> bool:
        """Check that a transaction can begin. A coordinator that has just moved gives no new epoch for a while."""
        try:
            self._session.ready(deadline)
        except Unavailable as error:
            self._attempts += 1
            if self._attempts >= MAX_ATTEMPTS:
                raise Fatal(str(error)) from error
            log.warning("could not begin a transaction", attempt=self._attempts, cause=str(error))
            return False
        return True

    def give_up(self, within_s: float) -> None:
        """See `ProducerSession.give_up`."""
        self._session.give_up(within_s)

    def _produce(self, records: Sequence[Finished], deadline: float) -> None:
        """Produce all outputs, in order within each topic, and the usage of all records.

        produce_batch is three times as fast, but it drops headers silently. So records with headers go one by one.
        """
        plain: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            for output in record.outputs:
                if output.headers is None:
                    plain.setdefault(output.topic, []).append({"key": output.key, "value": output.value})
                    continue
                self._produce_plain(output.topic, plain.pop(output.topic, []), deadline)
                self._produce_marked(output, deadline)
        for usage in outputs_of(self._usage, records, self._mark):
            if usage.headers is None:
                plain.setdefault(usage.topic, []).append({"key": usage.key, "value": usage.value})
            else:
                self._produce_marked(usage, deadline)
        for topic, messages in plain.items():
            self._produce_plain(topic, messages, deadline)

    def _produce_marked(self, output: Output, deadline: float) -> None:
        topic, key, value, headers = output.topic, output.key, output.value, output.headers

        def produce() -> None:
            self._producer.produce(
                topic,
                value,
                key,
                headers=headers,  # type: ignore[arg-type]  # lists are invariant, and these values are narrower
                on_delivery=self._on_delivery,
            )

        self._until(deadline, produce)

    def _produce_plain(self, topic: str, messages: list[dict[str, Any]], deadline: float) -> None:
        while messages:
            taken = self._producer.produce_batch(topic, messages, on_delivery=self._on_delivery)
            if taken == len(messages):
                return
            messages = [message for message in messages if "_error" in message]
            error = messages[0].pop("_error")
            for message in messages:
                message.pop("_error", None)
            if error.code() != KafkaError._QUEUE_FULL:
                raise KafkaException(error)
            self._wait(deadline)

    def _wait(self, deadline: float) -> None:
        if time.monotonic() >= deadline:
            raise Fatal("the broker accepts no more records: the transaction's timeout is over")
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
                        f"{self._fenced} ({cause.str()})" if _is_fencing(cause) else f"kafka: {cause.str()}"
                    ) from error
                if cause.txn_requires_abort() or not cause.retriable():
                    raise
                if time.monotonic() < deadline:
                    self._producer.poll(RETRY_S)
                else:
                    if is_commit:
                        # It is unknown whether it was committed, so neither an abort nor a new producer may follow.
                        raise Fatal(
                            f"the commit is still pending after the transaction's timeout: {cause.str()}"
                        ) from error
                    raise

    def _abort(self, ledger: Ledger, prefix: Prefix, error: KafkaException) -> None:
        cause: KafkaError = error.args[0]
        records = list(prefix.records())
        if cause.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            # Asked before the abort: the broker may have ended the transaction by its timeout, and fences the abort.
            gone = self._gone({topic for topic, _ in prefix.positions()})
            if gone:
                raise Fatal(DELETED.format(topic=", ".join(gone))) from error
        deadline = time.monotonic() + self._timeout_s
        try:
            self._until(deadline, lambda: self._producer.abort_transaction(_left(deadline)))
        except KafkaException as abort_error:
            failure: KafkaError = abort_error.args[0]
            sentence = AWAY if failure.retriable() else "kafka: a transaction could not be aborted"
            raise Fatal(f"{sentence} ({failure.str()})") from abort_error
        if cause.code() in OUTSIDE:
            self._attempts_outside += 1
            attempts, most = self._attempts_outside, MAX_ATTEMPTS_OUTSIDE
        else:
            self._attempts += 1
            attempts, most = self._attempts, MAX_ATTEMPTS
        time.sleep(min(RETRY_S * 2**attempts, MAX_RETRY_S))
        causes = [failure for failure, _ in self._failed] or [cause]
        log.warning("transaction aborted", attempt=attempts, cause=str(causes[0]), records=len(records))
        for failure in [*causes, cause]:
            if failure.code() in INCURABLE:
                topics = ", ".join(sorted(self._written_to(records)))
                raise Fatal(
                    f"cannot write results to {topics}: {INCURABLE[failure.code()]} ({failure.str()})"
                ) from error
        self._replace_refused(ledger, records)
        if attempts >= most:
            refused = ", ".join(sorted({str(message.topic()) for _, message in self._failed}))
            raise Fatal(
                f"a transaction was aborted {attempts} times: {causes[0].str()} {refused and f'({refused})'}"
                f"{self._missing(records)}"
            ) from error

    def _missing(self, records: Sequence[Finished]) -> str:
        """Name the output topics that do not exist: with a slow broker this may appear as a timeout of any record."""
        missing = self._gone(self._written_to(records))
        return f"; {', '.join(missing)}: {INCURABLE[KafkaError.UNKNOWN_TOPIC_OR_PART]}" if missing else ""

    def _written_to(self, records: Sequence[Finished]) -> set[str]:
        topics = {output.topic for record in records for output in record.outputs}
        return topics | {self._usage} if any(record.usage for record in records) else topics

    def _gone(self, topics: Set[str]) -> list[str]:
        try:
            return sorted(topics - set(self._producer.list_topics(timeout=5).topics))
        except KafkaException:
            return []

    def _replace_refused(self, ledger: Ledger, records: Sequence[Finished]) -> None:
        """Replace an output that the broker refuses as too large although it fitted the topic's limit at start.

        The broker refuses the records of a batch together. A single record is the cause itself; of several, the cause
        is unknown.
        """
        refused: dict[tuple[str | None, int | None], list[Message]] = {}
        for failure, message in self._failed:
            if failure.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                refused.setdefault((message.topic(), message.partition()), []).append(message)
        for (topic, _), messages in refused.items():
            if len(messages) > 1:
                raise Fatal(LIMIT_LOWERED.format(topic=topic))
            at_fault = (topic, messages[0].key(), messages[0].value())
            for record in records:
                if any((output.topic, output.key, output.value) == at_fault for output in record.outputs):
                    self._replace(ledger, record)

    def _shrink(self, ledger: Ledger, record: Finished) -> Finished:
        is_judged = all(output.topic != self._dead_letters for output in record.outputs)
        smaller = self._shrunk(record, self._max_bytes) if is_judged else None
        if smaller is None:
            return self._replace(ledger, record)
        smaller = replace(smaller, counted=(*smaller.counted, telemetry.SHORTENED))
        ledger.replace(smaller)
        return smaller

    def _replace(self, ledger: Ledger, record: Finished) -> Finished:
        letter = too_large(record, self._dead_letters, self._max_bytes[self._dead_letters])
        smaller = replace(letter, counted=(telemetry.DEAD_LETTERS.labels(OUTPUT_TOO_LARGE),))
        ledger.replace(smaller)
        return smaller

    def _fits(self, record: Finished) -> bool:
        for output in record.outputs:
            # Nearly all outputs are far below any limit, and one comparison shows this.
            if output.headers is None and len(output.key) + len(output.value or b"") < self._surely_fits:
                continue
            if size_of(output) > self._max_bytes[output.topic]:
                return False
        return True

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and error.code() not in PURGED:
            self._failed.append((error, message))


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())


def _is_fencing(error: KafkaError) -> bool:
    return error.code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED)
