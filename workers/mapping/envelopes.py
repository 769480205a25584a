"""Unwraps a record from its envelopes: a CloudEvent, a change of a database row, a field.

A record without the envelope is unchanged: a topic may hold both kinds while its producers change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from workers.core.cloudevents import PREFIX, data_of
from workers.core.frames import unframed
from workers.core.json_text import parse
from workers.core.reasons import Reason
from workers.core.records import Record
from workers.errors import Skipped, Undecodable
from workers.mapping.expressions import Find, Unusable, compiled

Unwrap = Callable[[Any], Any]
"""Gives the JSON value inside an envelope, or the value itself if it has no envelope."""

DELETED = "deleted"
"""The reason for skipping a record that reports a deleted row."""

_AS_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 20
"""An integer of so many digits may need more than 64 bits. orjson makes a float of it: two ids would become equal."""

_CHANGES = ("c", "u", "r")
"""The row was created, updated, or read for a snapshot."""


def json_of(value: bytes, record: Record) -> Any:
    """Give the JSON of a record's value.

    A CloudEvent in binary mode has its attributes in headers, and a value that may be plain text.

    Raises:
        Undecodable: it is not JSON.
    """
    value = unframed(value)
    try:
        return parse(value) if _LONG_NUMBER in value.translate(_AS_ZEROS) else orjson.loads(value)
    except (orjson.JSONDecodeError, Undecodable):
        if _is_plain_text(record):
            return value.decode("utf-8", "replace")
        return parse(value)


def _is_plain_text(record: Record) -> bool:
    return any(
        name.lower() == "content-type" and (value or b"").lower().startswith(b"text/plain")
        for name, value in record.headers
    )


def envelope_of(document: Any, record: Record) -> Any:
    """Give the envelope of a document: the attributes of a CloudEvent in binary mode, else the document itself."""
    attributes = {
        name.removeprefix(PREFIX): (value or b"").decode("utf-8", "replace")
        for name, value in record.headers
        if name.startswith(PREFIX)
    }
    return attributes if "specversion" in attributes else document


def unwrapping(written: object) -> Unwrap:
    """Compile one step of `unwrap`.

    Raises:
        Unusable: with a sentence.
    """
    if written == "cloudevents":
        return from_cloud_event
    if written == "debezium":
        return from_debezium
    if isinstance(written, dict) and list(written) == ["field"] and isinstance(written["field"], str):
        find = compiled(written["field"])
        return lambda document: _field(find, document)
    raise Unusable(f"{written!r} is unknown (one of: cloudevents, debezium, {{field: EXPRESSION}})")


def from_cloud_event(document: Any) -> Any:
    """Give the data of a CloudEvent in structured mode."""
    if not isinstance(document, dict) or "specversion" not in document:
        return document
    return data_of(document)


def from_debezium(document: Any) -> Any:
    """Give the row as it is after a change.

    Raises:
        Skipped: the row was deleted, or the change does not concern a row.
        Undecodable: the record holds no row, although it was created, updated or read.
    """
    change = document.get("payload", document) if isinstance(document, dict) else None
    if not isinstance(change, dict) or "op" not in change or not ("after" in change or "before" in change):
        return document
    if (op := change["op"]) not in _CHANGES:
        said = f" (op {op[:1]!r})" if isinstance(op, str) else ""
        raise Skipped(DELETED, f"the record reports a deleted row{said}")
    if (after := change.get("after")) is None:
        raise Undecodable(
            Reason.MISSING_FIELD,
            f"after: a change with op {op!r} needs the row; have the connector of MongoDB look up the whole document "
            "(capture.mode: change_streams_update_full)",
        )
    return _parsed(after) if isinstance(after, str) else after  # MongoDB's connector writes JSON in a text.


def _field(find: Find, document: Any) -> Any:
    found = find(document)
    return _parsed(found) if isinstance(found, str) else found


def _parsed(given: str | bytes) -> Any:
    """Give the JSON in a string; a string without JSON is the value itself."""
    value = given.encode("utf-8", "surrogatepass") if isinstance(given, str) else given
    try:
        return parse(value)
    except Undecodable:
        return value.decode("utf-8", "replace")
