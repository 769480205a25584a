"""What a row is, whichever file it lies in: an event of which only `text` is needed."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from collections.abc import Mapping as AnyMapping
from pathlib import Path
from typing import Any, NamedTuple

from schemas.event import EventDict
from workers.core.reasons import Reason
from workers.errors import Misconfigured, Undecodable
from workers.guard.guard import Request
from workers.mapping.document import Document
from workers.mapping.mapping import Mapping, read_document
from workers.mapping.sources import Record, parse
from workers.settings import Events

JUDGED = ("text", "role", "context", "language", "surface")
"""The fields that guard and policy read. Others may hold anything: a data set's `author_id` may be a number."""

UNREADABLE = (OSError, EOFError, zlib.error)
"""What reading a broken file raises: gzip has all three for one that is cut off or damaged."""

NO_RECORD = Record(None)
"""Rows have no topic, key and headers."""

_EVENTS = Events()


class Row(NamedTuple):
    """One row of an input file.

    Attributes:
        fields: the judged columns by name, and maybe others; None where it cannot be read: then `problem` says why.
        raw: gives it as it stands in the file, for the side file of bad rows; None where it is too long to be kept.
        native: what the format's own writer needs of it.
        position: how much of the file has been read behind it, in the unit of `Source.size`.
    """

    fields: AnyMapping[str, Any] | None
    problem: Undecodable | None
    raw: Callable[[], Any]
    native: Any
    position: int


class Reading:
    """How rows become events: by their own columns, by a text column of another name, or by a mapping.

    Attributes:
        name: tells one way of reading from another.
        text_column: the column that must be there; None where a mapping says what is read.
        columns: those that are read; None for all.
    """

    def __init__(self, document: Document, name: str = "", text_column: str | None = "text") -> None:
        """Compile. What only Kafka's records need (ids, tenants) is not read.

        Raises:
            Misconfigured: the mapping makes several events of a row.
        """
        if document.texts:
            raise Misconfigured(
                "--mapping: texts makes several events of a row, and a row gets one assessment: join the texts, as in "
                "text: {join: [title, body]}"
            )
        fixed = {"event_id": parse({"value": "row"}), "tenant_id": parse({"value": "file"}), "revision": None}
        self._mapping = Mapping(document.model_copy(update=fixed))
        self.name = name
        self.text_column = text_column
        self.columns = None if text_column is None else (*JUDGED, text_column)

    def event_of(self, row: Row) -> EventDict:
        """Give a row as an event, held to the same limits as an event from Kafka.

        A field that cannot be read counts as left out, unless it is the text.

        Raises:
            OneAtFault: it holds no event, or is to be skipped.
        """
        if row.problem is not None:
            raise row.problem
        (decoded,) = self._mapping.events_in(row.fields, NO_RECORD, _EVENTS)
        if not decoded.event["text"]:
            raise Undecodable(Reason.EMPTY_TEXT, "text: there is nothing to judge in an empty text")
        return decoded.event


def by_column(name: str) -> Reading:
    """Read the text from a column of this name."""
    return Reading(Document.model_validate({"text": json.dumps(name)}), f"column {name}", name)


def by_mapping(path: Path) -> Reading:
    """Read rows as a mapping in a file says.

    Raises:
        Misconfigured: it is not a mapping, or makes several events of a row.
    """
    document = read_document(path, "--mapping")
    return Reading(document, f"mapping {hashlib.sha256(path.read_bytes()).hexdigest()}", None)


PLAIN = Reading(Document())
"""Reads rows whose columns have the names of an event's fields."""


def request_of(event: EventDict) -> Request:
    """Give what the guard is asked about an event."""
    turns = tuple((turn["role"], turn["text"]) for turn in event.get("context", ()))
    return Request(event["text"], event.get("role", "user"), turns)
