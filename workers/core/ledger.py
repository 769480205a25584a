"""Tracks which records of each partition are pending, finished, or committed. Pure: no I/O, no clock.

Brokers check only that a member is alive, not that it owns a partition. So the worker never commits a record that is
not in this ledger under the current epoch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from workers.core.records import Finished, Source, TopicPartition
from workers.errors import Fatal


@dataclass(slots=True)
class _Partition:
    epoch: int
    under_way: deque[Source] = field(default_factory=deque)
    finished: dict[int, Finished] = field(default_factory=dict)
    prefix: list[Finished] = field(default_factory=list)
    last_registered: int = -1
    committed: int = -1
    """The last offset that was committed in this epoch."""

    @property
    def is_idle(self) -> bool:
        return not self.under_way and not self.prefix


class Front(NamedTuple):
    """Where a partition stands.

    `source` is its first record that is not committed, None if there is none. `offset` is the next offset to commit,
    None if nothing was read or committed in this epoch; `end` is the one after the last record that was read.
    """

    origin: TopicPartition
    source: Source | None
    offset: int | None
    end: int


class Prefix(dict[TopicPartition, tuple[int, list[Finished]]]):
    """The finished records to commit now: for each partition its epoch and a contiguous run, in offset order.

    `idle` has the epoch and the position of partitions without uncommitted records.
    """

    def __init__(self) -> None:
        super().__init__()
        self.idle: dict[TopicPartition, tuple[int, int]] = {}

    def __len__(self) -> int:
        """Count the records, not the partitions."""
        return sum(len(run) for _, run in self.values())

    def __bool__(self) -> bool:
        """Say whether there is anything to commit."""
        return bool(len(self) or self.idle)

    def records(self) -> Iterable[Finished]:
        """Give all records, in offset order within each partition."""
        for _, run in self.values():
            yield from run

    def positions(self) -> dict[TopicPartition, int]:
        """Give the offset to commit for each partition: the one after its last finished record, or its position."""
        after = {origin: run[-1].source.offset + 1 for origin, (_, run) in self.items()}
        return after | {origin: position for origin, (_, position) in self.idle.items()}


class Ledger:
    """Registered offsets for each assigned partition, and the contiguous finished prefix of each.

    Guarantee: a record is in at most one settled prefix, and only while its epoch is the current one.
    Never blocks. Owned by the Kafka thread; other threads may call `is_current` only.
    """

    def __init__(self) -> None:
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._epoch = 0
        self._ready = 0
        self._ready_since: float | None = None
        self.uncommitted = 0
        """Records that were registered and are neither settled nor dropped."""

    def assign(self, origins: Iterable[TopicPartition]) -> None:
        """Begin a new epoch for each of the partitions, and drop the records of an earlier epoch."""
        for origin in origins:
            self._forget(origin)
            self._epoch += 1
            self._partitions[origin] = _Partition(self._epoch)

    def revoke(self, origins: Iterable[TopicPartition]) -> None:
        """End the epochs of the partitions: their pending records can no longer be committed."""
        for origin in origins:
            self._forget(origin)

    def _forget(self, origin: TopicPartition) -> None:
        partition = self._partitions.pop(origin, None)
        if partition is not None:
            self.uncommitted -= len(partition.under_way) + len(partition.prefix)
            self._ready -= len(partition.prefix)
            if self._ready == 0:
                self._ready_since = None

    @property
    def assigned(self) -> list[TopicPartition]:
        """The partitions of the current assignment."""
        return list(self._partitions)

    def fronts(self) -> list[Front]:
        """Say where each partition stands."""
        return [_front(origin, partition) for origin, partition in self._partitions.items()]

    @property
    def idle(self) -> dict[TopicPartition, int]:
        """The partitions without uncommitted records, each with its epoch."""
        return {origin: partition.epoch for origin, partition in self._partitions.items() if partition.is_idle}

    @property
    def unfinished(self) -> int:
        """The number of records without an outcome."""
        behind = sum(len(partition.finished) for partition in self._partitions.values())
        return self.uncommitted - self._ready - behind

    def stuck(self, limit: int) -> list[TopicPartition]:
        """Name the partitions in which more than `limit` finished records wait for an earlier one to finish."""
        return [origin for origin, partition in self._partitions.items() if len(partition.finished) > limit]

    def is_current(self, origin: TopicPartition, epoch: int) -> bool:
        """Say whether work of this epoch can still be committed."""
        partition = self._partitions.get(origin)
        return partition is not None and partition.epoch == epoch

    def register(
        self, origin: TopicPartition, offset: int, timestamp_ms: int | None = None, received_at_ms: int = 0
    ) -> Source | None:
        """Register a received record. None if the partition is not assigned. The times become those of its source.

        Raises:
            Fatal: this offset, or a later one, was registered in this epoch. Offsets go back only if the log changed.
        """
        partition = self._partitions.get(origin)
        if partition is None:
            return None
        if offset <= partition.last_registered:
            raise Fatal(
                f"{origin.topic}/{origin.partition} went back from offset {partition.last_registered} to {offset}: the "
                "topic was created again, or its log was truncated. The next start reads the records that it has now"
            )
        partition.last_registered = offset
        source = Source(origin, partition.epoch, offset, timestamp_ms, received_at_ms)
        partition.under_way.append(source)
        self.uncommitted += 1
        return source

    def complete(self, finished: Sequence[Finished], now: float) -> int:
        """Take finished records in any order; return how many were stale (of an ended epoch, or finished before)."""
        stale = 0
        touched: set[TopicPartition] = set()
        for record in finished:
            source = record.source
            partition = self._partitions.get(source.origin)
            if (
                partition is None
                or partition.epoch != source.epoch
                or source.offset in partition.finished
                or not partition.under_way
                or not partition.under_way[0].offset <= source.offset <= partition.last_registered
            ):
                stale += 1
                continue
            partition.finished[source.offset] = record
            touched.add(source.origin)
        for origin in touched:
            self._advance(self._partitions[origin])
        if self._ready and self._ready_since is None:
            self._ready_since = now
        return stale

    def _advance(self, partition: _Partition) -> None:
        under_way, finished = partition.under_way, partition.finished
        before = len(partition.prefix)
        while under_way and (record := finished.pop(under_way[0].offset, None)) is not None:
            under_way.popleft()
            partition.prefix.append(record)
        self._ready += len(partition.prefix) - before

    def is_due(self, now: float, *, count: int, age_s: float) -> bool:
        """Say whether the prefix is large or old enough for a commit."""
        if self._ready_since is None:
            return False
        return self._ready >= count or now - self._ready_since >= age_s

    def take(self, limit: int | None = None, positions: Mapping[TopicPartition, int] | None = None) -> Prefix:
        """Copy the finished prefix, of `limit` records at most. `settle` it after the commit.

        `positions` has the consumer's position in partitions without uncommitted records. The prefix includes those
        that are not committed yet: transaction markers may follow the last record, and a consumer never receives them.
        """
        prefix = Prefix()
        left = limit if limit is not None else self._ready
        for origin, partition in self._partitions.items():
            if partition.prefix and left > 0:
                run = partition.prefix[:left]
                left -= len(run)
                prefix[origin] = (partition.epoch, run)
        for origin, position in (positions or {}).items():
            idle = self._partitions.get(origin)
            if idle is not None and idle.is_idle and position > max(idle.committed, idle.last_registered):
                prefix.idle[origin] = (idle.epoch, position)
        return prefix

    def settle(self, prefix: Prefix, now: float) -> None:
        """Drop the committed records. A partition whose epoch has ended since then does not change."""
        for origin, (epoch, run) in prefix.items():
            partition = self._partitions.get(origin)
            if partition is None or partition.epoch != epoch:
                continue
            del partition.prefix[: len(run)]
            partition.committed = run[-1].source.offset + 1
            self._ready -= len(run)
            self.uncommitted -= len(run)
        for origin, (epoch, position) in prefix.idle.items():
            partition = self._partitions.get(origin)
            if partition is not None and partition.epoch == epoch:
                partition.committed = position
        if len(prefix):
            self._ready_since = now if self._ready else None

    def replace(self, record: Finished) -> None:
        """Replace the output of a finished record that can never be produced."""
        partition = self._partitions.get(record.source.origin)
        if partition is None or partition.epoch != record.source.epoch:
            return
        for index, held in enumerate(partition.prefix):
            if held.source == record.source:
                partition.prefix[index] = record
                return


def _front(origin: TopicPartition, partition: _Partition) -> Front:
    after_last = max(partition.committed, partition.last_registered + 1)
    if partition.prefix:
        first = partition.prefix[0].source
    elif partition.under_way:
        first = partition.under_way[0]
    else:
        return Front(origin, None, after_last or None, after_last)
    return Front(origin, first, first.offset, after_last)
