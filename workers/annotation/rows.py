"""What a row is, whichever file it lies in: an event of which only `text` is needed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from schemas.event import EventDict
from workers.core.decode import Reason, from_document
from workers.errors import Undecodable
from workers.guard.guard import Request
from workers.settings import Events

JUDGED = ("text", "role", "context", "language", "surface")
"""The fields that guard and policy read. Others may hold anything: a data set's `author_id` may be a number."""

UNREADABLE = (OSError, EOFError, zlib.error)
"""What reading a broken file raises: gzip has all three for one that is cut off or damaged."""

_IDS = {"event_id": "row", "tenant_id": "file", "surface": "chat"}
_EVENTS = Events()


class Row(NamedTuple):
    """One row of an input file.

    Attributes:
        fields: the judged columns by name, and maybe others; None where it cannot be read: then `problem` says why.
        raw: gives it as it stands in the file, for the side file of bad rows; None where it is too long to be kept.
        native: what the format's own writer needs of it.
        position: how much of the file has been read behind it, in the unit of `Source.size`.
    """

    fields: Mapping[str, Any] | None
    problem: Undecodable | None
    raw: Callable[[], Any]
    native: Any
    position: int


def event_of(row: Row) -> EventDict:
    """Give the judged fields of a row as an event, held to the same limits as an event from Kafka.

    A field that cannot be read counts as left out, unless it is the text.

    Raises:
        Undecodable: with a `workers.core.decode.Reason`.
    """
    if row.problem is not None:
        raise row.problem
    fields = row.fields or {}
    judged = {name: fields[name] for name in JUDGED if fields.get(name) is not None}
    event = from_document({**_IDS, **judged}, _EVENTS).event
    if not event["text"]:
        raise Undecodable(Reason.EMPTY_TEXT, "text: there is nothing to judge in an empty text")
    return event


def request_of(event: EventDict) -> Request:
    """Give what the guard is asked about an event."""
    turns = tuple((turn["role"], turn["text"]) for turn in event.get("context", ()))
    return Request(event["text"], event.get("role", "user"), turns)
