"""Reads each field of an event that breaks the contract. Pure.

A wrong field must never affect another field, or prevent the judgement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from schemas.event import MAX_CONTEXT_TURNS, MAX_ID_CHARS, MAX_TEXT_CHARS, TurnDict
from schemas.taxonomy import Role, Surface
from workers.core.times import read_time

MAX_ATTRIBUTES_BYTES = 65_536
"""The limit for all attributes together, as JSON. Verdicts carry them, and a verdict has to fit into a Kafka record."""

MAX_ATTRIBUTE_NAME_CHARS = 128
MAX_ATTRIBUTE_DEPTH = 32
MAX_LANGUAGE_CHARS = 35

_ROLES = frozenset(Role)
_SURFACES = frozenset(Surface)
_EXACT = 2**53
"""Below this, a float holds every integer exactly."""

Read = tuple[Any, bool]
"""The value that was read (None: it cannot be read), and whether that is all of it."""


def optional_fields(document: Mapping[str, object]) -> tuple[dict[str, Any], list[str]]:
    """Give the optional fields that can be read, and the names of fields that cannot be read as a whole.

    null, an empty string and a missing field mean the same, and appear in neither result.
    """
    fields: dict[str, Any] = {}
    ignored: list[str] = []
    for name, read in _READERS.items():
        given = document.get(name)
        if given is None or given == "":
            continue
        value, is_whole = read(given)
        if value is not None:
            fields[name] = value
        if not is_whole:
            ignored.append(name)
    return fields, ignored


def identifier(given: object) -> str | None:
    """Give an id as a string of 1 to 256 characters. A number is written in digits. None: it is not usable."""
    written = _number(given)
    if isinstance(given, str):
        written = clean(given)
    return written if written and len(written) <= MAX_ID_CHARS else None


def text_of(given: object) -> str | None:
    """Give a text, which may be empty. A number is written in digits. None: it is not a text."""
    return clean(given) if isinstance(given, str) else _number(given)


def clean(text: str) -> str:
    """Replace each half of a surrogate pair by U+FFFD: UTF-8 cannot hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def shortened(text: str, limit: int) -> tuple[str, int]:
    """Shorten a text to `limit` characters: give its beginning and its end on two lines, and how many were cut."""
    if len(text) <= limit:
        return text, 0
    kept = limit - 1
    end = kept // 2
    return f"{text[: kept - end]}\n{text[len(text) - end :]}", len(text) - kept


def _number(given: object) -> str | None:
    if isinstance(given, bool) or not isinstance(given, (int, float)):
        return None
    if isinstance(given, float):
        if given.is_integer() and abs(given) < _EXACT:
            return str(int(given))
        return repr(given) if -float("inf") < given < float("inf") else None
    # Python does not convert integers of more than 4,300 digits.
    return str(given) if given.bit_length() <= 1024 else None


def _identifier(given: object) -> Read:
    read = identifier(given)
    return read, read is not None


def _one_of(known: frozenset[str]) -> Callable[[object], Read]:
    def read(given: object) -> Read:
        name = given.strip().lower() if isinstance(given, str) else None
        return (name, True) if name in known else (None, False)

    return read


def _language(given: object) -> Read:
    is_usable = isinstance(given, str) and len(given) <= MAX_LANGUAGE_CHARS
    return (clean(given), True) if is_usable and isinstance(given, str) else (None, False)


def _version(given: object) -> Read:
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 10:
        given = int(given)
    is_usable = isinstance(given, int) and not isinstance(given, bool) and given >= 1
    return (given, True) if is_usable else (None, False)


def _time(given: object) -> Read:
    read = read_time(given)
    return read, read is not None


def _context(given: object) -> Read:
    """Keep the newest turns that can be read."""
    given = given if isinstance(given, list) else [given]
    turns: list[TurnDict] = []
    is_whole = len(given) <= MAX_CONTEXT_TURNS
    for one in given[-MAX_CONTEXT_TURNS:]:
        turn, is_whole_turn = _turn(one)
        is_whole = is_whole and is_whole_turn
        if turn is not None:
            turns.append(turn)
    return turns, is_whole


def _turn(given: object) -> tuple[TurnDict | None, bool]:
    """Read a turn. A turn with an unknown role becomes a user's: the text matters more than its author."""
    if given is None:
        return None, True
    turn = given if isinstance(given, Mapping) else {"text": given}
    # The text of a deleted parent comment is null.
    text = "" if turn.get("text", given) is None else text_of(turn.get("text"))
    if text is None:
        return None, False
    role, is_known = _one_of(_ROLES)(turn.get("role") or "user")
    read: TurnDict = {"role": role or "user", "text": text[-MAX_TEXT_CHARS:]}
    return read, is_known and len(text) <= MAX_TEXT_CHARS


def _attributes(given: object) -> Read:
    """Keep the first attributes that fit."""
    if not isinstance(given, Mapping):
        return None, False
    taken: dict[str, object] = {}
    left = MAX_ATTRIBUTES_BYTES
    is_whole = True
    for given_name, value in given.items():
        name = clean(str(given_name))
        try:
            plain = _plain(value, MAX_ATTRIBUTE_DEPTH)
        except ValueError:
            is_whole = False
            continue
        left -= len(orjson.dumps({name: plain}))
        if left < 0:
            return taken, False
        if 1 <= len(name) <= MAX_ATTRIBUTE_NAME_CHARS:
            taken[name] = plain
        else:
            is_whole = False
    return taken, is_whole


def _plain(value: object, depth: int) -> object:
    """Give a value as JSON that every parser reads: no NaN, no halves of surrogate pairs, no integers over 64 bits.

    Raises:
        ValueError: it is nested deeper than `depth`, or it is not JSON.
    """
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else _number(value)
    if isinstance(value, float):
        return value if -float("inf") < value < float("inf") else None
    if depth and isinstance(value, Mapping):
        return {clean(str(name)): _plain(inner, depth - 1) for name, inner in value.items()}
    if depth and isinstance(value, (list, tuple)):
        return [_plain(inner, depth - 1) for inner in value]
    raise ValueError


_READERS: dict[str, Callable[[object], Read]] = {
    "schema_version": _version,
    "surface": _one_of(_SURFACES),
    "author_id": _identifier,
    "language": _language,
    "role": _one_of(_ROLES),
    "context": _context,
    "created_at": _time,
    "attributes": _attributes,
}
