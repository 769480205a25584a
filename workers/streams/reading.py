"""Reads stream events: the bytes of a record become an item, or there is a reason for a dead letter. Pure.

A text that is not judged must never look as if it was: content where none may be makes a dead letter.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, get_args

from msgspec import Struct

from schemas.stream import MAX_STREAM_TEXT_CHARS, MAX_STREAM_TOKENS
from workers.core.decode import present
from workers.core.fields import identifier
from workers.core.frames import is_framed, unframed
from workers.core.json_text import parse
from workers.core.reasons import Reason
from workers.core.records import Headers, Record, Source, record_key
from workers.core.times import read_time
from workers.errors import Undecodable
from workers.settings import Events

Kind: TypeAlias = Literal["open", "user", "delta", "close"]

KINDS: tuple[Kind, ...] = get_args(Kind)
WITH_CONTENT: tuple[Kind, ...] = ("user", "delta")

_MAX_SEQ = 2**53
_MAX_ID = 2**31


class Item(Struct, frozen=True, gc=False):
    """One event of a stream, in flight.

    `content` is a text, which may hold half of a surrogate pair at its ends, or token ids; None for `open` and `close`,
    and if it is longer than a record may have (`is_too_long`). `key` is that of its outputs.
    """

    source: Source
    key: bytes
    kind: Kind
    stream_id: str
    tenant_id: str
    seq: int
    content: str | Sequence[int] | None = None
    is_too_long: bool = False
    created_at: str | None = None
    headers: Headers | None = None

    @property
    def stream(self) -> tuple[str, str]:
        """The tenant and the id of the stream: two tenants may use the same id."""
        return (self.tenant_id, self.stream_id)

    @property
    def digest(self) -> int:
        """A number that is the same, in this process, for an item with the same content."""
        content = self.content
        plain = content if content is None or isinstance(content, str) else tuple(content)
        return hash((self.kind, plain, self.is_too_long))


class Reading:
    """Gives the item of a record. Never blocks."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def __call__(self, record: Record, source: Source) -> list[Item]:
        """Give the item of a record. Ids may be numbers, and numbers may be texts; unknown fields do not matter.

        Raises:
            Undecodable: it is not a stream event.
            Skipped: it has no value.
        """
        value = present(record.value, self._events)
        document = parse(unframed(value) if is_framed(value) else value)
        if not isinstance(document, Mapping):
            raise Undecodable(Reason.WRONG_TYPE, "the value is JSON, but not an object")
        kind = _kind(document)
        content, is_too_long = _content(document, kind)
        return [
            Item(
                source,
                record_key(record.key, source.origin.partition),
                kind,
                _identifier(document, "stream_id"),
                _identifier(document, "tenant_id"),
                _seq(document),
                content,
                is_too_long,
                read_time(document.get("created_at")),
                record.headers or None,
            )
        ]


def _kind(document: Mapping[str, object]) -> Kind:
    given = _required(document, "kind")
    for kind in KINDS:
        if given == kind:
            return kind
    raise Undecodable(Reason.INVALID_FIELD, f"kind: it is not one of {', '.join(KINDS)}")


def _identifier(document: Mapping[str, object], field: str) -> str:
    found = identifier(_required(document, field))
    if found is None:
        raise Undecodable(Reason.INVALID_FIELD, f"{field}: it is neither a string of 1 to 256 characters nor a number")
    return found


def _seq(document: Mapping[str, object]) -> int:
    given = _required(document, "seq")
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) < 17:
        given = int(given)
    if isinstance(given, float) and given.is_integer():
        given = int(given)
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < _MAX_SEQ:
        raise Undecodable(Reason.INVALID_FIELD, "seq: it is not a whole number from 0 to 2^53 - 1")
    return given


def _content(document: Mapping[str, object], kind: Kind) -> tuple[str | Sequence[int] | None, bool]:
    """Give the text or the token ids, and whether there are too many."""
    text, ids = document.get("text"), document.get("token_ids")
    if kind not in WITH_CONTENT:
        if text or ids:
            raise Undecodable(
                Reason.INVALID_FIELD,
                f"{kind} has neither text nor token_ids: send them as a delta, so that it is judged",
            )
        return None, False
    if (text is None) == (ids is None):
        what = "both text and token_ids" if text is not None else "neither text nor token_ids"
        raise Undecodable(
            Reason.MISSING_FIELD if text is None else Reason.INVALID_FIELD, f"{kind} has {what}: it needs one of them"
        )
    if text is not None:
        if not isinstance(text, str):
            raise Undecodable(Reason.INVALID_FIELD, "text: it is not a string")
        return (None, True) if len(text) > MAX_STREAM_TEXT_CHARS else (text, False)
    if not isinstance(ids, list) or not all(type(one) is int and -_MAX_ID <= one < _MAX_ID for one in ids):
        raise Undecodable(Reason.INVALID_FIELD, "token_ids: it is not a list of whole numbers")
    return (None, True) if len(ids) > MAX_STREAM_TOKENS else (array("i", ids), False)


def _required(document: Mapping[str, object], field: str) -> object:
    given = document.get(field)
    if given is None or given == "":
        raise Undecodable(Reason.MISSING_FIELD, f"{field}: the field is required")
    return given
