"""Turns polled records into events, dead letters or skipped records. Used by the Kafka thread."""

from __future__ import annotations

import traceback

import structlog
from confluent_kafka import Message
from msgspec.structs import replace

from workers import telemetry
from workers.core.batcher import estimate_tokens
from workers.core.cloudevents import NOTHING, opened
from workers.core.dead_letters import dead_letter
from workers.core.decode import Decoded, decode
from workers.core.reasons import Reason
from workers.core.records import Event, Finished, Headers, Source, record_key
from workers.core.siblings import Siblings
from workers.errors import Skipped, Undecodable
from workers.kafka.intake import headers_of
from workers.mapping.mapping import Mapping
from workers.mapping.sources import Record
from workers.settings import Settings

log = structlog.get_logger(__name__)

_FRAMES = 20
"""How many calls a logged traceback has at most: the innermost ones."""


class Decoding:
    """Reads records, by the mapping if there is one.

    Guarantee: a registered record becomes one or more events, or is finished at once, as a dead letter or skipped. An
    unforeseen error of decoding makes a dead letter, too: one record never ends the worker. Never blocks.
    """

    def __init__(self, settings: Settings, mapping: Mapping | None = None) -> None:
        self._events = settings.events
        self._dead_letters = settings.topics.dead_letters
        self._reads_cloud_events = settings.cloudevents.read
        self._mapping = mapping
        self._failures: set[tuple[str, str, int]] = set()

    def events(self, message: Message, source: Source) -> list[Event] | Finished:
        """Give the events of a record, or the finished record if it holds none."""
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
            return self._dead_letter(message, headers, source, error)
        except Skipped as skipped:
            return Finished(source, (), counted=(telemetry.SKIPPED.labels(skipped.reason),))
        except Exception as error:
            self._log(error, source)
            unreadable = Undecodable(Reason.NOT_READABLE, type(error).__name__)
            return self._dead_letter(message, headers, source, unreadable)
        value, key = message.value(), record_key(message.key(), source.origin.partition)
        siblings = Siblings(len(decoded)) if len(decoded) > 1 else None
        events = []
        for place, one in enumerate(decoded):
            events.append(
                Event(
                    source,
                    key,
                    one.event,
                    estimate_tokens(len(value or b"") if self._mapping is None else len(one.event["text"])),
                    headers or None,
                    ignored + one.ignored_fields,
                    one.truncated_text_chars,
                    siblings,
                    place,
                )
            )
        return events

    def _decoded(self, message: Message, headers: Headers, source: Source) -> list[Decoded]:
        value, attributes = message.value(), NOTHING
        # A value that is too large is refused unread.
        if self._reads_cloud_events and headers and len(value or b"") <= self._events.max_bytes:
            data, attributes = opened(value, headers)
            # A mapping removes the envelope itself, and may read its attributes.
            value = data if self._mapping is None else value
        if self._mapping is None:
            return [decode(value, self._events, source, attributes)]
        record = Record(value, message.key(), headers, source.origin.topic)
        return self._mapping.events(record, self._events, source, attributes)

    def _dead_letter(self, message: Message, headers: Headers, source: Source, error: Undecodable) -> Finished:
        letter = dead_letter(self._dead_letters, source, message.key(), message.value(), headers, error)
        return replace(letter, counted=(telemetry.DEAD_LETTERS.labels(error.reason),))

    def _log(self, error: Exception, source: Source) -> None:
        """Log an unforeseen error, once for each line of code that raises it.

        Without the error's message, which may repeat content: only its type, and the code that it passed.
        """
        innermost = traceback.extract_tb(error.__traceback__, limit=-1)[0]
        failure = (type(error).__name__, innermost.filename, innermost.lineno or 0)
        if failure in self._failures:
            return
        self._failures.add(failure)
        log.error(
            "a record cannot be read because of an error in this program: it becomes a dead letter, and so do others "
            "like it, without a further line here",
            topic=source.origin.topic,
            partition=source.origin.partition,
            offset=source.offset,
            error=type(error).__name__,
            traceback="Traceback (most recent call last):\n"
            + "".join(traceback.format_tb(error.__traceback__, limit=-_FRAMES)),
        )
