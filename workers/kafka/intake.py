"""The consumer: polls small batches, updates the ledger when the assignment changes, pauses partitions on request.

Owned by the Kafka thread. It must never raise from a librdkafka callback (librdkafka would free the whole fetched batch
and advance its position), and it must never commit an offset: the outbox does that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from operator import methodcaller

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from workers import telemetry
from workers.core.decode import Reason
from workers.core.lag import Lag
from workers.core.ledger import Ledger
from workers.core.records import NOTHING_LOST, Headers, TopicPartition
from workers.errors import Fatal, Undecodable
from workers.kafka import causes, clients, membership, statistics
from workers.kafka.route import Route
from workers.kafka.topic_watch import ConsumerLog

log = structlog.get_logger(__name__)

SILENT_S = 5.0
"""How long to wait for partitions before a log line says why there are none: after a kill without a `worker.id`, the
group waits for the killed worker's session."""

WAITING = (
    "the group has assigned none to this worker yet: a member may have ended without leaving, which the group detects "
    "after kafka.session_timeout_s, or there are more workers than partitions"
)

HARMLESS = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._DESTROY_BROKER,
    KafkaError._RESOLVE,
    KafkaError._RETRY,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._TRANSPORT,
    KafkaError._WAIT_COORD,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.THROTTLING_QUOTA_EXCEEDED,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
}
"""These errors occur right after a topic was created, while a broker is down, or while leaders and coordinators move.
librdkafka recovers from them. They are listed by code, because a message's error does not say whether it is retriable
or fatal."""

STRANDED = (
    "the Kafka client knows no broker any more: a broker that starts or stops may have answered with an empty list, "
    f"and librdkafka does not recover from that. {NOTHING_LOST}"
)

FENCED = (
    "this worker was fenced: another worker runs with the same worker.id ({id}) in this group, or `guardline worker "
    f"remove` removed it. {NOTHING_LOST}"
)


ONLY_ONE = (
    "Only one process of this group may work, and what is in the memory of this one may be old. A restart reads it "
    f"again. {NOTHING_LOST}"
)
TAKEN_OVER = f"another process may work for the group now. {ONLY_ONE}"
LOST = (
    "this worker lost its partitions: either it had no connection to the brokers for longer than "
    f"kafka.session_timeout_s, or another process took over. {ONLY_ONE}"
)


class Intake:
    """Polls records of the assigned partitions.

    Guarantee: a record that `poll` returns belongs to a partition that the ledger holds at that moment.
    """

    def __init__(
        self, route: Route, topics: list[str], ledger: Ledger, commit_before_revoke: Callable[[], None]
    ) -> None:
        self._ledger = ledger
        self._commit_before_revoke = commit_before_revoke
        self._route = route
        self._stays_by_name = clients.static_name(route) is not None
        self._assigned = telemetry.ASSIGNED.labels(route.group)
        self._may_commit = True
        self._failure: Exception | None = None
        self._stranded_reports = 0
        self._held: set[TopicPartition] = set()
        self._silent_until: float | None = time.monotonic() + SILENT_S
        self._paused_at = 0.0
        self.lag = Lag(ledger)
        self.log = ConsumerLog(shows_debug=clients.shows_debug(route.kafka))
        self.consumer = clients.consumer(route, on_statistics=self._on_statistics, logger=self.log)
        self.subscribe(topics)

    def subscribe(self, topics: list[str]) -> None:
        """Read these topics. Partitions of a topic that was read before stay assigned."""
        self.consumer.subscribe(topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def poll(self, count: int, timeout_s: float) -> list[Message]:
        """Return up to `count` records. Blocks for `timeout_s` at most, and for a commit when partitions are revoked.

        Raises:
            Fatal: a callback failed, or the consumer did; the caller must end without another commit.
        """
        try:
            messages = self.consumer.consume(count, timeout_s)
        except KafkaException as error:
            raise Fatal(f"the consumer failed: {error.args[0].str()}") from error
        if isinstance(self._failure, Fatal):
            raise self._failure
        if self._failure is not None:
            raise Fatal(f"a rebalance could not be handled: {self._failure}") from self._failure
        if self._stranded_reports > 1:  # A single report may come from a client that is about to bootstrap again.
            raise Fatal(STRANDED)
        if self._silent_until is not None and time.monotonic() > self._silent_until:
            self._silent_until = None
            log.info("waiting for partitions", group=self._route.group, reason=WAITING)
        records = []
        for message in messages:
            failure = message.error()
            if failure is None:
                records.append(message)
            elif failure.code() == KafkaError._FATAL:
                raise self._why_it_ends(failure)
            elif failure.code() == KafkaError._MAX_POLL_EXCEEDED:
                raise Fatal(
                    "the Kafka thread did not poll for kafka.max_poll_interval_s: the group has removed this worker"
                )
            elif failure.code() not in HARMLESS:
                raise self._why_unread(message.topic(), failure)
        return records

    def hold(self, origins: Iterable[TopicPartition]) -> None:
        """Pause these partitions and no others; `poll` keeps the membership alive.

        A pause discards the prefetched records of the partition, so change this seldom.
        """
        wanted = set(origins)
        if wanted or self._held:
            self._count_pause(begins=not self._held)
        for change, changed in (
            (self.consumer.pause, wanted - self._held),
            (self.consumer.resume, self._held - wanted),
        ):
            if changed:
                change([KafkaPartition(topic, partition) for topic, partition in changed])
        self._held = wanted

    def _count_pause(self, *, begins: bool) -> None:
        now = time.monotonic()
        if begins:
            telemetry.PAUSES.inc()
        else:
            telemetry.PAUSED_SECONDS.inc(now - self._paused_at)
        self._paused_at = now

    def give_up(self) -> None:
        """Stop committing: the worker ends because it failed."""
        self._may_commit = False

    def leave(self, within_s: float) -> None:
        """Leave the group and close the consumer. The rebalance callbacks run once more, and with them a last commit.

        Blocks for `within_s`, for that commit, and for librdkafka's close, which has no time limit while brokers hang.

        Raises:
            Fatal: the last commit failed, or a callback did.
        """
        if self._stays_by_name:
            clients.leave_by_name(self.consumer, time.monotonic() + within_s)
        self.consumer.close()
        if self._failure is not None and self._may_commit:
            raise Fatal(f"the last rebalance could not be handled: {self._failure}") from self._failure

    def _why_unread(self, topic: str | None, failure: KafkaError) -> Fatal:
        if failure.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            group = self._route.group
            sentence, needed = f"kafka.group: this user may not join {group}", f"READ on the group {group}"
        elif failure.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED and topic is not None:
            sentence, needed = f"{self._route.setting_of(topic)}: this user may not read {topic}", f"READ on {topic}"
        else:
            return Fatal(f"cannot read {topic or 'a topic'}: {failure.str()}")
        return causes.not_allowed(f"{sentence}: {failure.str()}", needed)

    def _why_it_ends(self, failure: KafkaError) -> Fatal:
        """Return the sentence for a fatal error, whose cause is only in its text."""
        said = failure.str()
        if KafkaError(KafkaError.FENCED_INSTANCE_ID).str() in said:
            self._stays_by_name = False  # The name belongs to the other worker now.
            return Fatal(FENCED.format(id=self._route.worker_id))
        for code, sentence in membership.REFUSALS.items():
            if KafkaError(code).str() in said:
                return Fatal(sentence)
        return Fatal(f"the consumer cannot go on: {said}")

    def _on_statistics(self, text: str) -> None:
        try:
            found = statistics.read(text)
            is_stranded = found is not None and found.is_stranded
            self._stranded_reports = self._stranded_reports + 1 if is_stranded else 0
            if found is not None:
                self.lag.report(found.ends)
        except Exception as error:
            self._failure = error

    def _on_assign(self, _: Consumer, partitions: list[KafkaPartition]) -> None:
        try:
            self._ledger.assign(_origins(partitions))
            self._count_rebalance("assigned")
            self._held.difference_update(_origins(partitions))  # A newly assigned partition is not paused.
            self._silent_until = None
            log.info("partitions assigned", group=self._route.group, partitions=_named(partitions))
        except Exception as error:
            self._failure = error

    def _on_revoke(self, _: Consumer, partitions: list[KafkaPartition]) -> None:
        try:
            if self._failure is None and self._may_commit:
                self._commit_before_revoke()
        except Exception as error:
            self._failure = error
        self._forget(partitions, "revoked")

    def _on_lost(self, _: Consumer, partitions: list[KafkaPartition]) -> None:
        if self._route.is_single:
            self._failure = Fatal(LOST)
        self._forget(partitions, "lost")

    def _forget(self, partitions: list[KafkaPartition], what: str) -> None:
        try:
            self._ledger.revoke(_origins(partitions))
            self._held.difference_update(_origins(partitions))
            self._count_rebalance(what)
            log.info(f"partitions {what}", group=self._route.group, partitions=_named(partitions))
        except Exception as error:
            self._failure = error

    def _count_rebalance(self, what: str) -> None:
        telemetry.REBALANCES.labels(what).inc()
        self._assigned.set(len(self._ledger.assigned))


_headers = methodcaller("headers")
"""confluent-kafka 2.16 returns from `Message.headers()` with an exception set when a name is not UTF-8. A direct call
does not check for that and crashes the process; a call through `methodcaller` does check."""


def headers_of(message: Message) -> Headers:
    """Return a record's headers as bytes, with any content; a header without a value is None.

    Raises:
        Undecodable: a name is not UTF-8. Do not call it again for that message.
    """
    try:
        headers = _headers(message)
    except SystemError:
        raise Undecodable(
            Reason.INVALID_HEADERS, "the name of a header is not UTF-8; all headers are left out"
        ) from None
    if not headers:
        return []
    pairs = headers.items() if isinstance(headers, dict) else headers
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in pairs]


def _origins(partitions: list[KafkaPartition]) -> list[TopicPartition]:
    return [TopicPartition(partition.topic, partition.partition) for partition in partitions]


def _named(partitions: list[KafkaPartition]) -> list[str]:
    return [f"{partition.topic}/{partition.partition}" for partition in partitions]
