"""Turns polled records into items, dead letters or skipped records. Used by the Kafka thread of every worker."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import structlog
from confluent_kafka import Message
from msgspec.structs import replace

from workers import telemetry
from workers.core.dead_letters import dead_letter
from workers.core.reasons import Reason
from workers.core.records import Finished, Headers, Record, Source
from workers.errors import Skipped, Undecodable
from workers.kafka.intake import headers_of

log = structlog.get_logger(__name__)

_FRAMES = 20
"""How many calls a logged traceback has at most: the innermost ones."""

Item = TypeVar("Item")


class Decoding(Generic[Item]):
    """Reads records by a function, and makes the dead letters of those that the function refuses.

    `read` gives the items of a record, or the finished record if there is nothing to work on. It raises `Undecodable`
    or `Skipped`, and must not block.

    Guarantee: a registered record becomes one or more items, or is finished at once. An unforeseen error of `read`
    makes a dead letter, too: one record never ends the worker. Never blocks.
    """

    def __init__(self, dead_letters: str, read: Callable[[Record, Source], Sequence[Item] | Finished]) -> None:
        self._dead_letters = dead_letters
        self._read = read
        self._failures: set[tuple[str, str, int]] = set()

    def __call__(self, message: Message, source: Source) -> Sequence[Item] | Finished:
        """Give the items of a record, or the finished record if it holds none."""
        headers: Headers = []
        refused: Undecodable | None = None
        try:
            try:
                headers = headers_of(message)
            except Undecodable as error:
                refused = error
            return self._read(Record(message.value(), message.key(), headers, source.origin.topic, refused), source)
        except Undecodable as error:
            return self._dead_letter(message, headers, source, error)
        except Skipped as skipped:
            return Finished(source, (), counted=(telemetry.SKIPPED.labels(skipped.reason),))
        except Exception as error:
            self._log(error, source)
            unreadable = Undecodable(Reason.NOT_READABLE, type(error).__name__)
            return self._dead_letter(message, headers, source, unreadable)

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
