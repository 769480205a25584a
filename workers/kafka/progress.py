"""Where partitions stand that hold nothing, so that a topic that was read to its end has a lag of zero.

Behind the last record there may be markers of transactions, and aborted records: a consumer steps over them, and
Kafka's tools count them as lag until an offset behind them is committed. Owned by the Kafka thread, and never used
in a rebalance callback: there the consumer already stands behind records that `consume()` has not handed over.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException
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


class Start(NamedTuple):
    """Of a partition at the beginning of an epoch: what the group has committed (-1: nothing), and its first offset."""

    committed: int
    first: int


class Progress:
    """Gives the positions that a commit may take along. Never blocks."""

    def __init__(self, onlooker: Consumer, consumer: Consumer, ledger: Ledger, questions: Questions) -> None:
        self._onlooker = onlooker
        self._consumer = consumer
        self._ledger = ledger
        self._questions = questions
        self._looked_at = 0.0
        self._starts: dict[Assigned, Start] = {}
        self._asked: list[Assigned] = []
        self._answer: Future[dict[TopicPartition, Start]] | None = None

    def positions(self, now: float) -> dict[TopicPartition, int]:
        """Give the offset to go on from of each partition that holds nothing, where it is known.

        Once in `IDLE_S`, and nothing in between. It is the one behind all that was handed over, but never before what
        the group has committed: librdkafka may still know a position of an earlier assignment. Of a partition from
        which nothing came, and of which retention took all that the group had not read, it is the first one there.
        """
        if now - self._looked_at < IDLE_S:
            return {}
        self._looked_at = now
        idle = self._ledger.idle
        self._learn(list(idle.items()))
        known = {origin: start for origin, epoch in idle.items() if (start := self._starts.get((origin, epoch)))}
        if not known:
            return {}
        found = self._consumer.position([KafkaPartition(*origin) for origin in known])
        return {
            TopicPartition(one.topic, one.partition): at
            for one in found
            if (at := _position(one.offset, known[TopicPartition(one.topic, one.partition)])) is not None
        }

    def _learn(self, idle: list[Assigned]) -> None:
        """Ask once in each epoch, and again where no answer could be had."""
        if self._answer is not None and self._answer.done():
            if self._answer.exception() is None:
                starts = self._answer.result()
                self._starts |= {assigned: starts[assigned[0]] for assigned in self._asked if assigned[0] in starts}
            self._answer = None
        self._starts = {assigned: start for assigned, start in self._starts.items() if self._is_current(assigned)}
        unknown = [assigned for assigned in idle if assigned not in self._starts]
        if unknown and self._answer is None:
            self._asked = unknown
            self._answer = self._questions.ask(lambda admin: starts_of(admin, self._onlooker, unknown))

    def _is_current(self, assigned: Assigned) -> bool:
        return self._ledger.is_current(*assigned)


def _position(position: int, start: Start) -> int | None:
    """Give the offset to commit for a partition that holds nothing; None where there is none to commit."""
    if position >= 0:
        return position if position >= start.committed else None
    return start.first if start.first > start.committed else None


def starts_of(admin: AdminClient, onlooker: Consumer, assigned: list[Assigned]) -> dict[TopicPartition, Start]:
    """Ask what the group has committed for each partition, and for its first offset. Blocks.

    Raises:
        KafkaException: no answer, or the former owner's commit is still in doubt.
    """
    partitions = [KafkaPartition(*origin) for origin, _ in assigned]
    committed: dict[TopicPartition, int] = {}
    for found in onlooker.committed(partitions, ANSWER_S):
        if found.error is not None:
            raise KafkaException(found.error)
        committed[TopicPartition(found.topic, found.partition)] = max(-1, found.offset)
    first = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the library's own
    firsts = admin.list_offsets(dict.fromkeys(partitions, first), request_timeout=ANSWER_S)
    return {
        (origin := TopicPartition(one.topic, one.partition)): Start(committed.get(origin, -1), found.result().offset)
        for one, found in firsts.items()
    }
