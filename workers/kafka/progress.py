"""The positions of partitions without uncommitted records, so that a topic that was read to its end has a lag of zero.

Transaction markers and aborted records may follow the last record. A consumer skips them, but Kafka's tools count them
as lag until an offset behind them is committed. Owned by the Kafka thread, and never used in a rebalance callback:
there the consumer's position is already behind records that `consume()` has not returned.
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
from workers.kafka.questions import ANSWER_S, Questions, answer_of

Assigned = tuple[TopicPartition, int]
"""A partition and the epoch of its assignment."""

IDLE_S = 1.0
"""How long positions wait for a transaction with records. Then they get their own transaction, which takes 11 ms."""


class Start(NamedTuple):
    """A partition at the beginning of an epoch: the group's committed offset (-1: none), and the first offset."""

    committed: int
    first: int


class Progress:
    """Finds the positions that a commit may include. Never blocks."""

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
        """Return the next offset of each partition without uncommitted records, where it is known.

        Once in `IDLE_S`; empty in between. The offset is the one after all returned records, but never below the
        group's committed offset, because librdkafka may still have a position of an earlier assignment. If no record
        was returned and retention deleted everything that the group had not read, it is the partition's first offset.
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

    def starts(self) -> dict[TopicPartition, int]:
        """Return the offset at which each assigned partition begins, where it is known."""
        return {origin: max(start) for (origin, _), start in self._starts.items()}

    def _learn(self, idle: list[Assigned]) -> None:
        """Ask once in each epoch, and again if there was no answer."""
        if self._answer is not None and self._answer.done():
            if (starts := answer_of(self._answer)) is not None:
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
    """Return the offset to commit for a partition without uncommitted records, or None."""
    if position >= 0:
        return position if position >= start.committed else None
    return start.first if start.first > start.committed else None


def starts_of(admin: AdminClient, onlooker: Consumer, assigned: list[Assigned]) -> dict[TopicPartition, Start]:
    """Ask for the group's committed offset and the first offset of each partition. Blocks.

    Raises:
        KafkaException: no answer, or the former owner's transaction is still open.
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
