"""Applies a mapping to records: turns the records of a platform into events.

An error must not contain a record's content: details name fields and expressions.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from msgspec.structs import replace

from schemas.event import MAX_ID_CHARS
from workers.core.cloudevents import NOTHING, Attributes, stand_in
from workers.core.decode import Decoded, from_document, present
from workers.core.reasons import Reason
from workers.core.records import Record
from workers.core.records import Source as Position
from workers.errors import Misconfigured, Skipped, Undecodable
from workers.mapping.document import Document, Turns, parse_yaml
from workers.mapping.envelopes import Unwrap, envelope_of, json_of
from workers.mapping.expressions import is_true
from workers.mapping.rich_text import Piece
from workers.mapping.sources import BY_TOPIC, Scope, Source, Text, text_in
from workers.settings import Events

FIELDS = ("event_id", "tenant_id", "surface", "author_id", "language", "role", "created_at")
"""The fields of an event that are one value."""

_BARE_WORD = re.compile(r"'(\w+)'")


class Mapped(NamedTuple):
    """One event of a record. `name` identifies it among the record's events; empty if there is only one."""

    name: str
    document: dict[str, Any]


class Mapping:
    """A compiled mapping.

    Guarantee: equal records give equal events, in the same order. It never blocks.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        self._steps: list[Unwrap] = document.unwrap
        self._named = [(name, source) for name in FIELDS if (source := getattr(document, name)) is not None]
        kept = {*FIELDS, "text", "context", "attributes"} - document.model_fields_set
        self._kept = tuple(kept - {"text"} if document.texts else kept)

    def events(
        self, record: Record, events: Events, position: Position | None = None, attributes: Attributes = NOTHING
    ) -> list[Decoded]:
        """Give the events of a record, one at least.

        Raises:
            Undecodable: the record gives no event. The detail names the field and the expression.
            Skipped: a condition of `skip_when` holds, a row was deleted, or the text is empty and
                `events.on_empty_text` is `skip`.
        """
        whole = json_of(present(record.value, events), record)
        return self.events_in(whole, record, events, position, attributes)

    def events_in(
        self,
        whole: Any,
        record: Record,
        events: Events,
        position: Position | None = None,
        attributes: Attributes = NOTHING,
    ) -> list[Decoded]:
        """Give the events of a record whose JSON is already parsed.

        Raises:
            Undecodable, Skipped: as `events`.
        """
        decoded: list[Decoded] = []
        skipped: Skipped | None = None
        for name, document in self._documents(whole, record, attributes):
            try:
                one = from_document(document, events, position)
            except Skipped as error:
                skipped = error
                continue
            if name and "event_id" in one.ignored_fields:
                # Its id is the record's position, which all events of the record share.
                one = replace(one, event={**one.event, "event_id": _id(one.event["event_id"], None, name)})
            decoded.append(one)
        if skipped is not None and not decoded:
            raise skipped
        return decoded

    def _documents(self, whole: Any, record: Record, attributes: Attributes) -> list[Mapped]:
        """Give the events of a record as they are before their fields are read and checked."""
        scope = self._scope(whole, record)
        fields: dict[str, Any] = {}
        if isinstance(scope.document, dict):
            fields = {name: scope.document[name] for name in self._kept if name in scope.document}
        for name, source in self._named:
            fields[name] = _found(name, source, scope)
        if self._document.attributes is not None:
            sources = self._document.attributes.items()
            found = ((name, _found(f"attributes.{name}", source, scope)) for name, source in sources)
            fields["attributes"] = {name: value for name, value in found if value is not None}
        if self._document.context is not None:
            turns = [turn for turns in self._document.context for turn in _turns(turns, scope)]
            fields["context"] = turns or None
        if self._document.tenant_id is not None and fields["tenant_id"] in (None, ""):
            nothing = _nothing("tenant_id", scope, self._document.tenant_id)
            if word := _BARE_WORD.fullmatch(self._document.tenant_id.said):
                raise Undecodable(nothing.reason, f"{nothing.detail}; for a fixed value write {{value: {word[1]}}}")
            raise nothing
        if attributes:
            stand_in(fields, attributes)
        edited = self._document.revision and _found("revision", self._document.revision, scope)
        revision = text_in(edited) if is_true(edited) else None
        return [Mapped(name, self._with_text(fields, pieces, revision, name)) for name, pieces in self._texts(scope)]

    def _scope(self, whole: Any, record: Record) -> Scope:
        document = whole
        for step in self._steps:
            document = step(document)
        scope = Scope(document, envelope_of(whole, record), record, self._document.quotes != "keep")
        for reason, condition in self._document.skip_when.items():
            if is_true(_found(f"skip_when.{reason}", condition, scope)):
                raise Skipped(reason, f"skip_when: {condition.said}")
        return scope

    def _texts(self, scope: Scope) -> list[tuple[str, list[Piece] | None]]:
        """Give the texts that the record has, by name; None stands for a text that the mapping does not change."""
        if self._document.texts:
            found = [(name, _found(f"texts.{name}", text, scope)) for name, text in self._document.texts.items()]
            present = [(name, pieces) for name, pieces in found if pieces is not None]
            if not present:
                raise _nothing("texts", scope, *self._document.texts.values())
            shown = [(name, pieces) for name, pieces in present if _shown(pieces)]
            return [*(shown or present[:1])]
        if self._document.text is None:
            return [("", None)]
        pieces = _found("text", self._document.text, scope)
        if pieces is None:
            raise _nothing("text", scope, self._document.text)
        return [("", pieces)]

    def _with_text(
        self, fields: dict[str, Any], pieces: list[Piece] | None, revision: str | None, name: str
    ) -> dict[str, Any]:
        document = dict(fields)
        if (event_id := text_in(document.get("event_id"))) and (revision or name):
            document["event_id"] = _id(event_id, revision, name)
        if pieces is None:
            return document
        own = _shown([piece for piece in pieces if not piece.is_quote])
        quoted = _shown([piece for piece in pieces if piece.is_quote])
        if self._document.quotes == "keep" or not quoted or not own:
            # A text that holds only quotes is judged: a writer can put anything into a quote.
            document["text"] = _shown(pieces)
            return document
        document["text"] = own
        if self._document.quotes == "context":
            before = document.get("context") or []
            document["context"] = [*(before if isinstance(before, list) else [before]), _turn("user", quoted)]
        return document


def _found(field: str, source: Source | Text, scope: Scope) -> Any:
    """Give what a source finds; an error names the field."""
    try:
        return source.find(scope)
    except Undecodable as error:
        raise Undecodable(error.reason, f"{field}: {error.detail}") from None


def _turns(turns: Turns, scope: Scope) -> list[Any]:
    if turns.role is not None:
        pieces = _found("context", turns.source, scope)
        return [_turn(turns.role, _shown(pieces))] if pieces else []
    found = _found("context", turns.source, scope)
    return found if isinstance(found, list) else [] if found is None else [found]


def _turn(role: str, text: str) -> dict[str, str]:
    return {"role": role, "text": text}


def _shown(pieces: list[Piece]) -> str:
    """Join pieces; a quote is on lines of its own."""
    parts: list[str] = []
    for before, piece in zip([None, *pieces], pieces, strict=False):
        if before is not None and before.is_quote != piece.is_quote and not before.text.endswith("\n"):
            parts.append("\n")
        parts.append(piece.text)
    return "".join(parts).strip()


def _id(event_id: str, revision: str | None, name: str) -> str:
    """Give `ID/REVISION/NAME`, without the parts that are missing. An id that is too long loses its beginning."""
    return "/".join(filter(None, (event_id, revision, name)))[-MAX_ID_CHARS:]


def _nothing(field: str, scope: Scope, *sources: Source | Text) -> Undecodable:
    said = " or ".join(source.said for source in sources)
    where = " in the record" if all(source.said.startswith(("'", '"')) for source in sources) else ""
    # A worker's records always have a topic.
    hint = "; no topic is given: give it with --topic" if BY_TOPIC in said and not scope.record.topic else ""
    return Undecodable(Reason.MISSING_FIELD, f"{field}: {said} finds nothing{where}{hint}")


def load(path: Path, called: str = "") -> Mapping:
    """Read and compile the mapping in a file; `called` is the setting or option that names it.

    Raises:
        Misconfigured: as `read_document`.
    """
    return Mapping(read_document(path, called))


def read_document(path: Path, called: str = "") -> Document:
    """Read the mapping in a file; `called` is the setting or option that names it.

    Raises:
        Misconfigured: it cannot be read, or it is not a mapping.
    """
    said = f"{called}: " if called else ""
    path = path.absolute()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"{said}cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{said}{path} is not UTF-8: {error.reason} at byte {error.start}") from None
    return parse_yaml(text, f"{said}{path}")
