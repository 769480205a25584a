"""Where `guardline produce --streams` sends a line: to `topics.streams`, with the stream as its key."""

from __future__ import annotations

from collections.abc import Sequence

from workers.core.records import Record, Source, TopicPartition
from workers.kafka.produce import Destination, Kind
from workers.settings import Settings
from workers.streams.reading import Reading
from workers.streams.route import of_streams

NOWHERE = Source(TopicPartition("", 0), 0, 0)
"""In the place of a record's position: the line has none yet."""


def stream_events(settings: Settings) -> Kind:
    """Give the steps of streams. The worker reads them by the same code."""
    read = Reading(settings.events)

    def destination(inputs: Sequence[str], value: bytes) -> Destination:
        (item,) = read(Record(value), NOWHERE)
        return inputs[0], item.stream_id.encode()

    return Kind("stream event", of_streams(settings), destination)
