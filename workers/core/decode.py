"""Turns a record's bytes into a validated event, or says why that cannot be done.

It must never crash, and never repeat a content in an error: details name fields, not values.
"""

import json
from enum import StrEnum

from pydantic import TypeAdapter, ValidationError

from schemas.event import EventDict
from workers.errors import Undecodable

MAX_BYTES = 256 * 1024
_MAX_DETAIL_CHARS = 300

# The validator itself: the adapter's own method looks at seven more arguments for every event.
_validate = TypeAdapter(EventDict).validator.validate_json


class Reason(StrEnum):
    """Why a record is a dead letter: a closed set, because each is a metric label."""

    TOMBSTONE = "tombstone"
    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    INVALID_UNICODE = "invalid_unicode"
    TOO_DEEP = "too_deep"
    WRONG_TYPE = "wrong_type"
    MISSING_FIELD = "missing_field"
    EMPTY_TEXT = "empty_text"
    INVALID_FIELD = "invalid_field"
    INVALID_HEADERS = "invalid_headers"


def decode(value: bytes | None, max_bytes: int = MAX_BYTES) -> EventDict:
    """Give the event that a record's value holds: a UTF-8 JSON object as in `schemas.event.Event`.

    Accepts what that model accepts, and gives the same values; what the record leaves out is not in the dict.

    Raises:
        Undecodable: with a `Reason`.
    """
    if value is None:
        raise Undecodable(Reason.TOMBSTONE, "the record has no value; an event is a JSON object")
    if len(value) > max_bytes:
        raise Undecodable(Reason.TOO_LARGE, f"the value has {len(value)} bytes; at most {max_bytes} are taken")
    try:
        event: EventDict = _validate(value, strict=True)
    except ValidationError as error:
        raise _bad_input(value, error) from None
    # pydantic's parser takes NaN and Infinity, which are not JSON (RFC 8259, section 6), where a field is ignored.
    if b"NaN" in value or b"Infinity" in value:
        json.loads(value, parse_constant=_refuse_constant)
    return event


def _refuse_constant(name: str) -> None:
    raise Undecodable(Reason.NOT_JSON, f"{name} is not JSON; send null or leave the field out")


def _bad_input(value: bytes, error: ValidationError) -> Undecodable:
    first = error.errors(include_url=False, include_input=False)[0]
    kind, message = first["type"], first["msg"]
    place = ".".join(str(part) for part in first["loc"])
    if place.startswith("attributes."):
        place = "attributes"  # What follows is a name that the sender chose, or its key.
    if kind == "json_invalid":
        return _not_json(value, message)
    if kind == "dict_type" and not place:
        return Undecodable(Reason.WRONG_TYPE, "the value is JSON, but not an object")
    if kind == "missing":
        return Undecodable(Reason.MISSING_FIELD, f"{place}: the field is required"[:_MAX_DETAIL_CHARS])
    if place == "text" and kind == "string_too_short":
        return Undecodable(Reason.EMPTY_TEXT, "text: there is nothing to judge in an empty text")
    if place == "text" and kind == "string_too_long":
        return Undecodable(Reason.TOO_LARGE, f"text: {message}")
    return Undecodable(Reason.INVALID_FIELD, f"{place}: {message}"[:_MAX_DETAIL_CHARS])


def _not_json(value: bytes, message: str) -> Undecodable:
    if "recursion limit" in message:
        return Undecodable(Reason.TOO_DEEP, message)
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        return Undecodable(Reason.NOT_UTF8, f"byte {error.start} is not UTF-8")
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return Undecodable(Reason.NOT_JSON, message)
    # Python's parser takes an escaped half of a surrogate pair; no UTF-8 text can hold one, so no verdict could.
    return Undecodable(Reason.INVALID_UNICODE, f"{message}: a \\u escape is half of a surrogate pair")
