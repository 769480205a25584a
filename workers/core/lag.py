"""How far a worker is behind: in records, and by the age of the oldest one. Pure: time is passed in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from workers.core.ledger import Ledger
from workers.core.records import TopicPartition


class End(NamedTuple):
    """What the consumer knows of a partition: its first offset, its end for `read_committed`, and the next to poll."""

    first: int
    end: int
    position: int


class Lag:
    """The lag of the assigned partitions.

    The Kafka thread calls `report` and `look`; any thread may read the attributes. Never blocks.

    Attributes:
        records: how many offsets of the assigned partitions are not committed.
        oldest_s: the timestamp of the oldest such record, in seconds since 1970; None if there is none.
        oldest_received_s: when the worker read the first record that it has not committed; None if there is none.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._ends: Mapping[TopicPartition, End] = {}
        self._asked_ends: Mapping[TopicPartition, int] = {}
        self._starts: Mapping[TopicPartition, int] = {}
        self._unread_since: dict[TopicPartition, float] = {}
        self.records = 0
        self.oldest_s: float | None = None
        self.oldest_received_s: float | None = None

    def report(self, ends: Mapping[TopicPartition, End]) -> None:
        """Take what the consumer knows of its partitions. It learns nothing of one that it does not fetch."""
        self._ends = ends

    def learn(self, ends: Mapping[TopicPartition, int]) -> None:
        """Take the ends of the partitions as a broker gave them. Empty: the reports of the consumer are newer."""
        self._asked_ends = ends

    def start_at(self, starts: Mapping[TopicPartition, int]) -> None:
        """Take the offsets at which partitions begin from which the consumer has fetched nothing yet."""
        self._starts = starts

    def look(self, now: float) -> None:
        """Work out the lag. `now` is a `time.time` value.

        The timestamp of a record that was not read yet is unknown. If the worker has read nothing else of its
        partition, the record counts as old as the first look that found it.
        """
        records = 0
        oldest: list[float] = []
        received: list[float] = []
        unread_since: dict[TopicPartition, float] = {}
        for front in self._ledger.fronts():
            end = self._ends.get(front.origin)
            offset = front.offset
            if offset is None:
                offset = self._starts.get(front.origin) if end is None else end.position
            if offset is None:
                continue
            first, last = (0, 0) if end is None else (end.first, end.end)
            behind = max(0, max(front.end, last, self._asked_ends.get(front.origin, 0)) - max(offset, first))
            records += behind
            if (source := front.source) is not None:
                at_ms = source.received_at_ms if source.timestamp_ms is None else source.timestamp_ms
                oldest.append(at_ms / 1000)
                received.append(source.received_at_ms / 1000)
            elif behind:
                unread_since[front.origin] = self._unread_since.get(front.origin, now)
        self._unread_since = unread_since
        self.records = records
        self.oldest_s = min([*oldest, *unread_since.values()], default=None)
        self.oldest_received_s = min(received, default=None)
