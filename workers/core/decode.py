"""Turns the bytes of a record into an event, or gives the reason why that is not possible.

A record that keeps the contract takes the fast path: one strict validator. Any other record is read field by field, and
a wrong field that judging does not need never prevents the judgement. This module must never crash, and never repeat
content in an error: details name fields, not values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import orjson
from msgspec import Struct
from msgspec.structs import replace
from pydantic import TypeAdapter, ValidationError

from schemas.event import MAX_ID_CHARS, EventDict
from workers.core.cloudevents import NOTHING, Attributes, stand_in
from workers.core.fields import identifier, optional_fields, shortened, text_of
from workers.core.frames import is_framed, unframed
from workers.core.json_text import parse
from workers.core.reasons import Reason as Reason
from workers.core.records import Source
from workers.errors import Skipped, Undecodable
from workers.refusals import in_words
from workers.settings import Events

UNNAMED = "unnamed"
"""The id of an event without an id that does not come from a record."""

_MAX_DETAIL_CHARS = 300

# The validator itself: the adapter's own method looks at seven more arguments for every event.
_validate = TypeAdapter(EventDict).validator.validate_json


class Decoded(Struct, frozen=True, gc=False):
    """An event as it was read.

    `ignored_fields` names the fields that could not be used as they were. `truncated_text_chars` counts the characters
    that were cut from the middle of the text.
    """

    event: EventDict
    ignored_fields: tuple[str, ...] = ()
    truncated_text_chars: int = 0


def decode(
    value: bytes | None, events: Events, source: Source | None = None, attributes: Attributes = NOTHING
) -> Decoded:
    """Give the event in a record's value, a UTF-8 JSON object.

    This accepts everything that `schemas.event.Event` accepts, and gives the same values. Fields that the record does
    not have are not in the dict, unless the CloudEvent around them has them: `attributes`. Without `events.strict` it
    also accepts the records described in `from_document`.

    Raises:
        Undecodable: with a `Reason`.
        Skipped: the record is a tombstone, or its text is empty and `events.on_empty_text` says so.
    """
    value = present(value, events)
    try:
        event: EventDict = _validate(value, strict=True)
    except ValidationError as error:
        if is_framed(value):
            return decode(unframed(value), events, source, attributes)
        if not events.strict:
            return from_document(parse(value), events, source, attributes)
        event = _strictly(value, attributes, error)
    if attributes:
        stand_in(cast(dict[str, Any], event), attributes)
    if events.strict:
        # pydantic's parser accepts NaN and Infinity in unknown fields; they are not JSON (RFC 8259, section 6).
        if b"NaN" in value or b"Infinity" in value:
            json.loads(value, parse_constant=_refuse_constant)
    elif len(event["text"]) > events.max_text_chars:
        return _within(Decoded(event), events)
    return Decoded(event)


def _strictly(value: bytes, attributes: Attributes, error: ValidationError) -> EventDict:
    """Validate a record again with the id that its CloudEvent has.

    Raises:
        Undecodable: it breaks the contract in anything else.
    """
    if "event_id" in attributes:
        try:
            document = orjson.loads(value)
            stand_in(document, attributes)
            return cast(EventDict, _validate(orjson.dumps(document), strict=True))
        except ValidationError as second:
            error = second
        except (AttributeError, TypeError, ValueError):  # It is not JSON, or not an object.
            pass
    raise _bad_input(value, error)


def present(value: bytes | None, events: Events) -> bytes:
    """Check that a record has a value, and that it is not too large.

    Raises:
        Undecodable: it is too large, or the record is a tombstone and `events.strict` is set.
        Skipped: the record is a tombstone.
    """
    if value is None:
        if events.strict:
            raise Undecodable(Reason.TOMBSTONE, "the record has no value; an event is a JSON object")
        raise Skipped(Reason.TOMBSTONE, "the record has no value")
    if len(value) > events.max_bytes:
        raise Undecodable(Reason.TOO_LARGE, f"the value has {len(value)} bytes; at most {events.max_bytes} are taken")
    return value


def from_document(
    document: object, events: Events, source: Source | None = None, attributes: Attributes = NOTHING
) -> Decoded:
    """Give the event in a JSON value. Reads it field by field, also with `events.strict`.

    Only `tenant_id` and `text` are required. Ids may be numbers. null, an empty string and a missing field mean the
    same. A field that cannot be read is left out, and `ignored_fields` names it. Without a usable `event_id`, the
    position of the record becomes the id. Without a usable `surface`, the name of the topic decides.

    Raises:
        Undecodable: with a `Reason`.
        Skipped: the text is empty, and `events.on_empty_text` says so.
    """
    if not isinstance(document, Mapping):
        raise Undecodable(Reason.WRONG_TYPE, "the value is JSON, but not an object")
    if attributes:
        document = dict(document)
        stand_in(document, attributes)
    tenant_id, text = _tenant(document, events), _text(document, events)
    fields, ignored = optional_fields(document)
    fields.setdefault("surface", _surface_of(source))
    event_id = identifier(document.get("event_id"))
    if event_id is None:
        event_id = UNNAMED if source is None else _position(source)
        ignored.insert(0, "event_id")
    event = cast(EventDict, {"event_id": event_id, "tenant_id": tenant_id, "text": text, **fields})
    return _within(Decoded(event, tuple(ignored)), events)


def _missing(field: str, events: Events) -> Undecodable:
    if events.mapping:
        hint = "the mapping does not say where it is, and the record has no field of this name"
    else:
        hint = "records of another shape need a mapping (events.mapping)"
    return Undecodable(Reason.MISSING_FIELD, f"{field}: the field is required; {hint}")


def _tenant(document: Mapping[str, object], events: Events) -> str:
    given = document.get("tenant_id")
    if given is None or given == "":
        raise _missing("tenant_id", events)
    tenant_id = identifier(given)
    if tenant_id is None:
        raise Undecodable(Reason.INVALID_FIELD, "tenant_id: it is neither a string of 1 to 256 characters nor a number")
    return tenant_id


def _text(document: Mapping[str, object], events: Events) -> str:
    if "text" not in document:
        raise _missing("text", events)
    given = document["text"]
    text = "" if given is None else text_of(given)
    if text is None:
        raise Undecodable(Reason.INVALID_FIELD, "text: it is neither a string nor a number")
    if not text and events.on_empty_text == "skip":
        raise Skipped(Reason.EMPTY_TEXT, "there is nothing to judge in an empty text")
    return text


def _position(source: Source) -> str:
    """Give an id that is the same each time the record is read."""
    return "/".join(map(str, (*source.origin, source.offset)))[-MAX_ID_CHARS:]


def _surface_of(source: Source | None) -> str:
    """Give `comment` if the name of the topic ends in it, else `chat`."""
    return "comment" if source is not None and source.origin.topic.rstrip("s").endswith("comment") else "chat"


def _within(decoded: Decoded, events: Events) -> Decoded:
    text, cut = shortened(decoded.event["text"], events.max_text_chars)
    if not cut:
        return decoded
    return replace(decoded, event={**decoded.event, "text": text}, truncated_text_chars=cut)


def _refuse_constant(name: str) -> None:
    raise Undecodable(Reason.NOT_JSON, f"{name} is not JSON; send null or leave the field out")


def _bad_input(value: bytes, error: ValidationError) -> Undecodable:
    first = error.errors(include_url=False, include_input=False)[0]
    kind, message = first["type"], first["msg"]
    place = ".".join(str(part) for part in first["loc"])
    if place.startswith("attributes."):
        place = "attributes"  # The rest is a name that the sender chose.
    if kind == "json_invalid":
        return _not_json(value, message)
    if kind == "dict_type" and not place:
        return Undecodable(Reason.WRONG_TYPE, "the value is JSON, but not an object")
    if kind == "missing":
        return Undecodable(Reason.MISSING_FIELD, f"{place}: the field is required"[:_MAX_DETAIL_CHARS])
    if place == "text" and kind == "string_too_short":
        return Undecodable(Reason.EMPTY_TEXT, "text: there is nothing to judge in an empty text")
    if place == "text" and kind == "string_too_long":
        return Undecodable(Reason.TOO_LARGE, f"text: {in_words(first)}")
    return Undecodable(Reason.INVALID_FIELD, f"{place}: {in_words(first)}"[:_MAX_DETAIL_CHARS])


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
    # Python's parser accepts an escaped half of a surrogate pair. UTF-8 cannot hold it, so a verdict could not either.
    return Undecodable(Reason.INVALID_UNICODE, f"{message}: a \\u escape is half of a surrogate pair")
