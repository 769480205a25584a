"""Turns polled records into events, dead letters or skipped records. Used by the Kafka thread."""

from __future__ import annotations

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from workers import telemetry
from workers.core.batcher import estimate_tokens
from workers.core.dead_letters import dead_letter
from workers.core.decode import Decoded, decode
from workers.core.records import Event, Finished, Headers, Source, record_key
from workers.core.siblings import Siblings
from workers.errors import Skipped, Undecodable
from workers.kafka.intake import headers_of
from workers.mapping.mapping import Mapping
from workers.mapping.sources import Record
from workers.settings import Settings


class Decoding:
    """Reads records, by the mapping if there is one.

    Guarantee: a registered record becomes one or more events, or is finished at once, as a dead letter or skipped.
    Never blocks.
    """

    def __init__(self, settings: Settings, mapping: Mapping | None = None) -> None:
        self._events = settings.events
        self._dead_letters = settings.topics.dead_letters
        self._mapping = mapping

    def events(self, message: Message, source: Source, now_ms: int) -> list[Event] | Finished:
        """Give the events of a record, or the finished record if it holds none."""
        value, partition = message.value(), source.origin.partition
        headers: Headers = []
        ignored: tuple[str, ...] = ()
        try:
            try:
                headers = headers_of(message)
            except Undecodable:
                if self._events.strict:
                    raise
                ignored = ("headers",)
            decoded = self._decoded(message, headers, source)
        except Undecodable as error:
            telemetry.DEAD_LETTERS.labels(error.reason).inc()
            key = record_key(message.key(), partition)
            return dead_letter(self._dead_letters, source, key, value, headers, error)
        except Skipped as skipped:
            telemetry.SKIPPED.labels(skipped.reason).inc()
            return Finished(source, ())
        key = record_key(message.key(), partition)
        kind, timestamp_ms = message.timestamp()
        siblings = Siblings(len(decoded)) if len(decoded) > 1 else None
        events = []
        for place, one in enumerate(decoded):
            ignored_fields = ignored + one.ignored_fields
            for field in ignored_fields:
                telemetry.IGNORED_FIELDS.labels(field).inc()
            events.append(
                Event(
                    source,
                    key,
                    one.event,
                    now_ms,
                    estimate_tokens(len(value or b"") if self._mapping is None else len(one.event["text"])),
                    headers or None,
                    timestamp_ms if kind != TIMESTAMP_NOT_AVAILABLE else None,
                    ignored_fields,
                    one.truncated_text_chars,
                    siblings,
                    place,
                )
            )
        return events

    def _decoded(self, message: Message, headers: Headers, source: Source) -> list[Decoded]:
        if self._mapping is None:
            return [decode(message.value(), self._events, source)]
        record = Record(message.value(), message.key(), headers, source.origin.topic)
        return self._mapping.events(record, self._events, source)
