"""Where partitions stand that hold nothing, so that a topic that was read to its end has a lag of zero.

Behind the last record there may be markers of transactions, and aborted records: a consumer steps over them, and
Kafka's tools count them as lag until an offset behind them is committed. Owned by the Kafka thread, and never used
in a rebalance callback: there the consumer already stands behind records that `consume()` has not handed over.
"""

from __future__ import annotations

from concurrent.futures import Future

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from workers.core.ledger import Ledger
from workers.core.records import TopicPartition
from workers.kafka.questions import ANSWER_S, Questions

Assigned = tuple[TopicPartition, int]
"""A partition and the epoch of its assignment."""

IDLE_S = 1.0
"""How long positions wait for a transaction that has records; then they have one of their own, 11 ms."""


class Progress:
    """Gives the positions that a commit may take along. Never blocks."""

    def __init__(self, group: str, consumer: Consumer, ledger: Ledger, questions: Questions) -> None:
        self._group = group
        self._consumer = consumer
        self._ledger = ledger
        self._questions = questions
        self._looked_at = 0.0
        self._starts: dict[Assigned, int | None] = {}
        self._asked: list[Assigned] = []
        self._answer: Future[dict[TopicPartition, int]] | None = None

    def is_due(self, now: float) -> bool:
        """Say whether positions have waited for long enough to be worth a transaction of their own."""
        return now - self._looked_at >= IDLE_S

    def positions(self, now: float) -> dict[TopicPartition, int]:
        """Give the offset to go on from of each partition that holds nothing, where it is known.

        It is the one behind all that was handed over. Of a partition from which nothing came yet, and for which the
        group has never committed anything, it is the first one that is there.
        """
        self._looked_at = now
        idle = self._ledger.idle
        if not idle:
            return {}
        positions: dict[TopicPartition, int] = {}
        unread: list[Assigned] = []
        for found in self._consumer.position([KafkaPartition(*origin) for origin in idle]):
            origin = TopicPartition(found.topic, found.partition)
            if found.offset >= 0:
                positions[origin] = found.offset
            else:
                unread.append((origin, idle[origin]))
        self._ask(unread)
        for origin, epoch in unread:
            first = self._starts.get((origin, epoch))
            if first is not None:
                positions[origin] = first
        return positions

    def _ask(self, unread: list[Assigned]) -> None:
        """Ask once in each epoch, and again where no answer could be had."""
        if self._answer is not None and self._answer.done():
            if self._answer.exception() is None:
                starts = self._answer.result()
                self._starts.update({assigned: starts.get(assigned[0]) for assigned in self._asked})
            self._answer = None
        self._starts = {assigned: self._starts[assigned] for assigned in unread if assigned in self._starts}
        unknown = [assigned for assigned in unread if assigned not in self._starts]
        if unknown and self._answer is None:
            self._asked = unknown
            self._answer = self._questions.ask(lambda admin: first_offsets(admin, self._group, unknown))


def first_offsets(admin: AdminClient, group: str, assigned: list[Assigned]) -> dict[TopicPartition, int]:
    """Give the first offset of each partition for which the group has committed nothing. Blocks.

    Raises:
        KafkaException: no answer, or the former owner's commit is still in doubt.
    """
    asked = ConsumerGroupTopicPartitions(group, [KafkaPartition(*origin) for origin, _ in assigned])
    (answer,) = admin.list_consumer_group_offsets([asked], require_stable=True, request_timeout=ANSWER_S).values()
    new = []
    for found in answer.result().topic_partitions:
        if found.error is not None:
            raise KafkaException(found.error)
        if found.offset < 0:
            new.append(KafkaPartition(found.topic, found.partition))
    if not new:
        return {}
    first = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the library's own
    firsts = admin.list_offsets(dict.fromkeys(new, first), request_timeout=ANSWER_S)
    return {TopicPartition(one.topic, one.partition): found.result().offset for one, found in firsts.items()}
