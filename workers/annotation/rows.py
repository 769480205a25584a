"""What a row is, whichever file it lies in: an event of which only `text` is needed."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from schemas.event import EventDict
from workers.core.decode import Reason, decode
from workers.errors import Undecodable
from workers.guard.guard import Request

JUDGED = ("text", "role", "context", "language", "surface")
"""The fields that guard and policy read. Others may hold anything: a data set's `author_id` may be a number."""

UNREADABLE = (OSError, EOFError, zlib.error)
"""What reading a broken file raises: gzip has all three for one that is cut off or damaged."""

_IDS = {"event_id": "row", "tenant_id": "file", "surface": "chat"}


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

    A field that is null counts as left out.

    Raises:
        Undecodable: with a `workers.core.decode.Reason`.
    """
    if row.problem is not None:
        raise row.problem
    fields = row.fields or {}
    judged = {name: fields[name] for name in JUDGED if fields.get(name) is not None}
    try:
        return decode(orjson.dumps({**_IDS, **judged}))
    except TypeError as error:
        reason = Reason.INVALID_UNICODE if "surrogate" in str(error) else Reason.INVALID_FIELD
        raise Undecodable(reason, str(error)) from None


def request_of(event: EventDict) -> Request:
    """Give what the guard is asked about an event."""
    turns = tuple((turn["role"], turn["text"]) for turn in event.get("context", ()))
    return Request(event["text"], event.get("role", "user"), turns)
