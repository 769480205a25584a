"""Reads librdkafka's statistics of the consumer: what it knows of brokers and partitions, without a request."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import DecodeError, Struct, field, json

from workers.core.lag import End
from workers.core.records import TopicPartition


class _Broker(Struct):
    source: str
    """`configured`, `learned`, or `logical`: a coordinator, which is a second name for one of the others."""


class _Partition(Struct):
    lo_offset: int
    ls_offset: int
    """The last stable offset: a `read_committed` consumer can read the records before it."""
    next_offset: int
    """The next offset to fetch."""
    fetchq_cnt: int
    """The records that are fetched and were not polled."""

    @property
    def position(self) -> int:
        """The next offset to poll, if no other offset than those of records was fetched."""
        return max(0, self.next_offset - self.fetchq_cnt)

    @property
    def end(self) -> End:
        """A partition that was never fetched ends at its position."""
        return End(max(0, self.lo_offset), max(self.ls_offset, self.position), self.position)


class _Topic(Struct):
    partitions: dict[str, _Partition]


class Statistics(Struct):
    """One report. Unknown offsets are negative."""

    brokers: dict[str, _Broker]
    topics: dict[str, _Topic] = field(default_factory=dict)

    @property
    def is_stranded(self) -> bool:
        """Whether the client knows no broker to which it could send a request (librdkafka's issue 5301)."""
        return all(broker.source == "logical" for broker in self.brokers.values())

    @property
    def ends(self) -> Mapping[TopicPartition, End]:
        """The partitions whose position is known."""
        return {
            TopicPartition(name, int(number)): End(
                max(0, one.lo_offset), max(one.ls_offset, one.position), one.position
            )
            for name, topic in self.topics.items()
            for number, one in topic.partitions.items()
            if one.next_offset >= 0
        }


def read(text: str) -> Statistics | None:
    """Parse a report. None: librdkafka does not escape strings, and a `client.id` with a quotation mark is enough."""
    try:
        return json.decode(text, type=Statistics)
    except DecodeError:
        return None
