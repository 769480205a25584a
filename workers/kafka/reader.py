"""Reads verdicts, as a downstream service would: for people and for checks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from confluent_kafka import (
    OFFSET_BEGINNING,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_fixed

from workers.errors import Unavailable
from workers.kafka import causes, clients
from workers.kafka.merge import Merge, Origin
from workers.kafka.topics import find
from workers.settings import Kafka

IDLE_S = 0.5

LOOK_EVERY_S = 5.0
LOOK_AGAIN_S = 1.0
"""How often a reader checks for added partitions; the second one applies after a partition could not be read."""

OPEN_S = 0.1
"""Between two checks whether a transaction is still open."""

SHORT_S = 10.0
"""How long no record may come while a partition ends before the end that its leader has named."""

GONE = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}

NO_LEADER = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
}
"""What a broker answers while a partition gets its first leader, or another one."""

CLOCKS_MS = 300_000
"""How much earlier than a given time a reader begins: clocks differ."""


def read(
    kafka: Kafka,
    topics: list[str],
    *,
    from_beginning: bool,
    follow: bool,
    wait_s: float | None = None,
    since_ms: int | None = None,
    resume: Mapping[Origin, int] | None = None,
    until: Mapping[Origin, int] | None = None,
) -> Iterator[Message | None]:
    """Yield committed records of the topics, and None after an interval without a record.

    Without `follow` it ends at the end of every partition, and gives the records of all partitions in the order of
    their timestamps, and of equal ones in the order of `topics`. With `follow` it reads added partitions from their
    beginning. Reads outside any group, commits nothing, and sees only committed transactions. Blocks while the
    brokers are down. `wait_s`: how long records may wait for others before they are yielded. With `since_ms` it
    leaves out most records that were written before this time, in milliseconds since 1970. `resume`: the offsets at
    which it begins with partitions that were read before; a partition that does not have its offset any more is
    read from the beginning. `until`: the least ends, for a reader without `follow`: a follower, or a new leader,
    may not have all records that were committed before.

    Guarantee: without `from_beginning`, it yields every record that is committed after its first value was asked for.

    Raises:
        Unavailable: Kafka or a topic is not available, or the topic was deleted, or a partition does not reach the end
            in `until`.
        Misconfigured: Kafka refuses this client, or the user may not read a topic.
    """
    fetch_s = wait_s if wait_s is not None or follow else clients.TO_THE_END_S
    consumer = clients.reader(kafka, follow=follow, wait_s=fetch_s)
    try:
        partitions = _Partitions(consumer, kafka, topics)
        starts = dict.fromkeys(partitions.known, OFFSET_BEGINNING)
        if since_ms is not None:
            at = max(0, since_ms - CLOCKS_MS)
            wanted = [TopicPartition(*origin, at) for origin in partitions.known]
            found = consumer.offsets_for_times(wanted, clients.ANSWER_S)
            starts = {(one.topic, one.partition): one.offset for one in found}
        elif not from_beginning:
            known = [TopicPartition(*origin) for origin in partitions.known]
            starts = ends(clients.admin(kafka), known, IsolationLevel.READ_COMMITTED)
        starts |= {origin: offset for origin, offset in (resume or {}).items() if origin in starts}
        consumer.assign([TopicPartition(*origin, start) for origin, start in starts.items()])
        unread = set(partitions.known)
        short_since: float | None = None
        merge = Merge(consumer, unread, topics)
        while follow or unread:
            messages = consumer.consume(500, IDLE_S if fetch_s is None else fetch_s)
            for message in messages:
                failure = message.error()
                if failure is None and follow:
                    yield message
                elif failure is None:
                    merge.add(message)
                    short_since = None
                elif failure.code() == KafkaError._PARTITION_EOF:
                    origin = (str(message.topic()), int(message.partition() or 0))
                    if (message.offset() or 0) >= (until or {}).get(origin, 0):
                        unread.discard(origin)
                    elif short_since is None:
                        short_since = time.monotonic()
                elif failure.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    topic = message.topic()
                    raise causes.not_allowed(f"topics: this user may not read {topic}", f"READ on {topic}")
                elif failure.code() in GONE:
                    partitions.look_soon()
            yield from merge.ready()
            if unread and short_since is not None and time.monotonic() > short_since + SHORT_S:
                raise Unavailable(f"kafka: {', '.join(topics)} does not reach the end that its leader has named")
            if not messages:
                yield None
            if added := partitions.added():
                consumer.incremental_assign([TopicPartition(*origin, OFFSET_BEGINNING) for origin in added])
                unread |= added
    except KafkaException as error:
        raise causes.failure(f"kafka: cannot read {', '.join(topics)}", error.args[0]) from error
    finally:
        consumer.close()


class _Partitions:
    """The partitions that are read, and a look every few seconds whether there are more, or a topic is gone."""

    def __init__(self, consumer: clients.Reader, kafka: Kafka, topics: Sequence[str]) -> None:
        """Ask for them. Raises as `read`."""
        self._consumer = consumer
        self._topics = topics
        present = clients.present_topics(consumer, kafka)
        find(topics, present)
        self.known = {(topic, n) for topic in topics for n in present[topic].partitions}
        self._looked_at = time.monotonic()
        self._wait_s = LOOK_EVERY_S
        self._is_missing = False

    def look_soon(self) -> None:
        """Do not wait for the next look: a partition could not be read."""
        self._wait_s = LOOK_AGAIN_S

    def added(self) -> set[Origin]:
        """Return those that were added since the last look; none between two looks, and while the brokers are away.

        Raises:
            Unavailable: two looks in a row found no such topic. A broker that starts may not know it for a moment.
        """
        if time.monotonic() < self._looked_at + self._wait_s:
            return set()
        self._looked_at, self._wait_s = time.monotonic(), LOOK_EVERY_S
        try:
            found = self._consumer.list_topics(timeout=clients.LOOK_S)
        except KafkaException:
            return set()
        if not found.brokers:
            return set()
        missing = [topic for topic in self._topics if topic not in found.topics]
        if missing:
            if self._is_missing:
                find(self._topics, found.topics)
            self._is_missing, self._wait_s = True, LOOK_AGAIN_S
            return set()
        self._is_missing = False
        added = {(topic, n) for topic in self._topics for n in found.topics[topic].partitions} - self.known
        self.known |= added
        return added


def wait_for_open_transactions(kafka: Kafka, topic: str) -> dict[Origin, int]:
    """Wait until readers see every record that was committed before this call. Returns the end of each partition then.

    An open transaction hides all records after its first one. Blocks for at most three times
    `kafka.transaction_timeout_s`.

    Raises:
        Unavailable: Kafka or the topic is not there, or a transaction stays open for longer.
        Misconfigured: Kafka refuses this client.
    """
    deadline = time.monotonic() + 3 * kafka.transaction_timeout_s
    admin = clients.admin(kafka)
    present = clients.present_topics(admin, kafka)
    find([topic], present)
    partitions = [TopicPartition(topic, number) for number in present[topic].partitions]
    written = ends(admin, partitions, IsolationLevel.READ_UNCOMMITTED)
    while True:
        visible = ends(admin, partitions, IsolationLevel.READ_COMMITTED)
        if all(visible[origin] >= end for origin, end in written.items()):
            return written
        if time.monotonic() > deadline:
            raise Unavailable(f"kafka: a transaction on {topic} stays open: end the producer that began it")
        time.sleep(OPEN_S)


def ends(admin: AdminClient, partitions: list[TopicPartition], level: IsolationLevel) -> dict[Origin, int]:
    """Give the end of each partition. Waits up to `ANSWER_S` for partitions that have no leader yet.

    Raises:
        Unavailable: Kafka does not answer, or a partition has no leader.
        Misconfigured: this user may not ask.
    """

    def look_for_leaders(_: RetryCallState) -> None:
        admin.list_topics(timeout=clients.ANSWER_S)  # Otherwise the client asks the former leaders again.

    attempts = Retrying(
        retry=retry_if_exception(_has_no_leader),
        stop=stop_after_delay(clients.ANSWER_S),
        wait=wait_fixed(OPEN_S),
        before_sleep=look_for_leaders,
        reraise=True,
    )
    try:
        return attempts(_ends_now, admin, partitions, level)
    except KafkaException as error:
        raise causes.failure("kafka: cannot read the ends of a topic", error.args[0]) from error


def _ends_now(admin: AdminClient, partitions: list[TopicPartition], level: IsolationLevel) -> dict[Origin, int]:
    latest: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # confluent-kafka gives it no type
    answers = admin.list_offsets(
        dict.fromkeys(partitions, latest), isolation_level=level, request_timeout=clients.ANSWER_S
    )
    return {(one.topic, one.partition): answer.result().offset for one, answer in answers.items()}


def _has_no_leader(error: BaseException) -> bool:
    return isinstance(error, KafkaException) and error.args[0].code() in NO_LEADER
