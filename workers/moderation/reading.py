"""Reads the events of a record: those of a CloudEvent, of a mapped record, or the one that the record is."""

from __future__ import annotations

from workers.core.batcher import estimate_tokens
from workers.core.cloudevents import NOTHING, opened
from workers.core.decode import Decoded, decode
from workers.core.records import Event, Record, Source, record_key
from workers.core.siblings import Siblings
from workers.mapping.mapping import Mapping
from workers.settings import Settings


class EventReader:
    """Gives the events of a record, by the mapping if there is one. Never blocks."""

    def __init__(self, settings: Settings, mapping: Mapping | None = None) -> None:
        self._events = settings.events
        self._reads_cloud_events = settings.cloudevents.read
        self._mapping = mapping

    def __call__(self, record: Record, source: Source) -> list[Event]:
        """Give one or more events.

        Raises:
            Undecodable: the record holds none.
            Skipped: the settings or the mapping leave the record out.
        """
        ignored: tuple[str, ...] = ()
        if record.headers_refused is not None:
            if self._events.strict:
                raise record.headers_refused
            ignored = ("headers",)
        decoded = self._decoded(record, source)
        value, key = record.value, record_key(record.key, source.origin.partition)
        siblings = Siblings(len(decoded)) if len(decoded) > 1 else None
        events = []
        for place, one in enumerate(decoded):
            events.append(
                Event(
                    source,
                    key,
                    one.event,
                    estimate_tokens(len(value or b"") if self._mapping is None else len(one.event["text"])),
                    record.headers or None,
                    ignored + one.ignored_fields,
                    one.truncated_text_chars,
                    siblings,
                    place,
                )
            )
        return events

    def _decoded(self, record: Record, source: Source) -> list[Decoded]:
        value, attributes = record.value, NOTHING
        # A value that is too large is refused unread.
        if self._reads_cloud_events and record.headers and len(value or b"") <= self._events.max_bytes:
            data, attributes = opened(value, record.headers)
            # A mapping removes the envelope itself, and may read its attributes.
            value = data if self._mapping is None else value
        if self._mapping is None:
            return [decode(value, self._events, source, attributes)]
        return self._mapping.events(record, self._events, source, attributes)
