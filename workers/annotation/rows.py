"""A row of a file, in whichever format: an event of which only `text` is required."""

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
from workers.core.records import Record
from workers.errors import Misconfigured, Undecodable
from workers.guard.guard import Request
from workers.mapping.document import Document
from workers.mapping.mapping import Mapping, read_document
from workers.mapping.sources import parse
from workers.settings import Events

JUDGED = ("text", "role", "context", "language", "surface")
"""The fields that guard and policy read. Other fields may have any value."""

UNREADABLE = (OSError, EOFError, zlib.error)
"""The errors of reading a broken file. gzip raises all three for a file that is cut off or damaged."""

NO_RECORD = Record(None)
"""Rows have no topic, key and headers."""

TEXT_REQUIRED = "text: the field is required; --text names its column, or --mapping a mapping that says where it is"

_EVENTS = Events()


class Row(NamedTuple):
    """One row of an input file.

    Attributes:
        fields: the judged columns by name, and maybe others; None if the row cannot be read: then `problem` says why.
        raw: gives the row as it is in the file, for the side file of bad rows; None if it is too long to be kept.
        native: the value that the format's own writer needs.
        position: how much of the file has been read after the row, in the unit of `Source.size`.
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
        """Compile the mapping. Ids and tenants, which only records of Kafka need, are not read.

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
        self._has_text = document.text is not None
        self.name = name
        self.text_column = text_column
        self.columns = None if text_column is None else (*JUDGED, text_column)

    def event_of(self, row: Row) -> EventDict:
        """Give a row as an event, held to the same limits as an event from Kafka.

        A field that cannot be read counts as missing, unless it is the text.

        Raises:
            OneAtFault: the row holds no event, or the mapping skips it.
        """
        if row.problem is not None:
            raise row.problem
        try:
            (decoded,) = self._mapping.events_in(row.fields, NO_RECORD, _EVENTS)
        except Undecodable as error:
            if error.reason == Reason.MISSING_FIELD and not self._has_text:
                raise Undecodable(error.reason, TEXT_REQUIRED) from None
            raise
        if not decoded.event["text"]:
            raise Undecodable(Reason.EMPTY_TEXT, "text: there is nothing to judge in an empty text")
        return decoded.event


def by_column(name: str) -> Reading:
    """Read the text from a column of this name."""
    return Reading(Document.model_validate({"text": json.dumps(name)}), f"column {name}", name)


def by_mapping(path: Path) -> Reading:
    """Read rows as a mapping in a file says.

    Raises:
        Misconfigured: the file is not a mapping, or makes several events of a row.
    """
    document = read_document(path, "--mapping")
    return Reading(document, f"mapping {hashlib.sha256(path.read_bytes()).hexdigest()}", None)


PLAIN = Reading(Document())
"""Reads rows whose columns have the names of an event's fields."""


def request_of(event: EventDict) -> Request:
    """Give the request to the guard for an event."""
    turns = tuple((turn["role"], turn["text"]) for turn in event.get("context", ()))
    return Request(event["text"], event.get("role", "user"), turns)
