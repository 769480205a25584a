"""Where a field of an event comes from: an expression, or an object that names another place. Compiled once."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from workers.core.fields import text_of
from workers.core.records import Headers, Record
from workers.mapping.expressions import Find, Unusable, compiled
from workers.mapping.rich_text import Converter, Piece, from_html, from_markdown, from_plain, from_slack

MAX_DEPTH = 32
"""How deep the pieces of a text may be nested."""


class Scope(NamedTuple):
    """The inputs of a source: the JSON inside the record's envelopes, the record's whole JSON, and the record."""

    document: Any
    envelope: Any
    record: Record
    tells_quotes: bool = False
    """Whether quotes are separated from the writer's own words."""


class Source(NamedTuple):
    """Gives a JSON value, None if there is none. `said` is the name of the source in a sentence."""

    said: str
    find: Callable[[Scope], Any]


class Text(NamedTuple):
    """Gives the pieces of a text, None if there is no text. An empty text has no pieces."""

    said: str
    find: Callable[[Scope], list[Piece] | None]


CONVERTERS: dict[str, Converter] = {"html": from_html, "markdown": from_markdown, "slack": from_slack}

BY_TOPIC = "the topic by "
"""The beginning of the name of a source that reads the topic."""

PLACES = "value, header, topic, key, envelope, first, join"


def parse(written: object) -> Source:
    """Compile a source.

    Raises:
        Unusable: with a sentence.
    """
    if isinstance(written, str):
        return _expression(written)
    kind, argument, separator = _taken_apart(written)
    if kind == "value":
        return Source(f"value {argument!r}", lambda _: argument)
    if kind == "header":
        name = _word(kind, argument)
        return Source(f"header {name!r}", lambda scope: _header(scope.record.headers, name))
    if kind == "topic":
        return _topic(_word(kind, argument))
    if kind == "key":
        if argument is not True:
            raise Unusable("key: takes no other value than true")
        return Source("the record's key", lambda scope: _decoded(scope.record.key))
    if kind == "envelope":
        find = compiled(_word(kind, argument))
        return Source(f"{argument!r} in the envelope", lambda scope: find(scope.envelope))
    if kind == "first":
        return _first([parse(one) for one in _list(kind, argument)])
    if kind == "join":
        parts = [parse(one) for one in argument] if isinstance(argument, list) else [parse(argument)]
        return Source(_all_said(parts, " and "), lambda scope: _joined(parts, scope, separator))
    raise Unusable(f"unknown source {kind!r} (one of: {PLACES}{', html, markdown, slack for texts'})")


def parse_text(written: object) -> Text:
    """Compile the source of a text.

    Raises:
        Unusable: with a sentence.
    """
    kind = next(iter(written), None) if isinstance(written, dict) else None
    if kind in CONVERTERS:
        _, argument, _ = _taken_apart(written)
        inner, convert = parse_text(argument), CONVERTERS[kind]
        return Text(inner.said, lambda scope: _converted(inner, convert, scope))
    if kind == "first":
        _, argument, _ = _taken_apart(written)
        texts = [parse_text(one) for one in _list(kind, argument)]
        return Text(_all_said(texts, " or "), lambda scope: _first_text(texts, scope))
    if kind == "join":
        _, argument, separator = _taken_apart(written)
        if isinstance(argument, list):
            texts = [parse_text(one) for one in argument]
            return Text(_all_said(texts, " and "), lambda scope: _joined_texts(texts, scope, separator))
        spread = parse(argument)
        return Text(spread.said, lambda scope: _spread(spread.find(scope), separator, scope))
    source = parse(written)
    return Text(source.said, lambda scope: _pieces(text_in(source.find(scope)), scope))


def text_in(found: Any, depth: int = MAX_DEPTH) -> str | None:
    """Give the text of a JSON value: a string, a number, or pieces (strings, and objects with a `text`) joined."""
    if not depth:
        return None
    if isinstance(found, list):
        texts = [text for one in found if (text := text_in(one, depth - 1)) is not None]
        return "".join(texts) if texts else None
    if isinstance(found, dict):
        return text_in(found.get("text"), depth - 1)
    return text_of(found)


def _expression(written: str) -> Source:
    find: Find = compiled(written)
    return Source(repr(written), lambda scope: find(scope.document))


def _taken_apart(written: object) -> tuple[str, Any, str]:
    """Give an object's name, its value, and the `with` of a join."""
    if not isinstance(written, dict) or not written:
        raise Unusable(f"a source is an expression or an object such as {{value: acme}}, not {written!r}")
    names = [name for name in written if name != "with"]
    if len(names) != 1 or ("with" in written and names != ["join"]):
        raise Unusable(
            f"an object has one name, and a join may also have 'with'; here are {', '.join(map(str, written))}"
        )
    separator = written.get("with", "\n")
    if not isinstance(separator, str):
        raise Unusable("with: has to be a text, in quotes")
    return str(names[0]), written[names[0]], separator


def _word(kind: str, argument: object) -> str:
    if not isinstance(argument, str) or not argument:
        raise Unusable(f"{kind}: has to be a text, not {argument!r}")
    return argument


def _list(kind: str, argument: object) -> list[object]:
    if not isinstance(argument, list) or not argument:
        raise Unusable(f"{kind}: has to be a list of sources")
    return argument


def _header(headers: Headers, name: str) -> str | None:
    """Give the last header of that name, as Kafka's own clients do."""
    return next((_decoded(value) for known, value in reversed(headers) if known == name), None)


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _topic(pattern: str) -> Source:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise Unusable(f"topic: {pattern!r} is not a regular expression: {error}") from None

    def find(scope: Scope) -> str | None:
        found = expression.search(scope.record.topic)
        return found and found[1 if expression.groups else 0]

    return Source(f"{BY_TOPIC}'{pattern}'", find)


def _all_said(parts: list[Any], between: str) -> str:
    return between.join(part.said for part in parts)


def _first(parts: list[Source]) -> Source:
    def find(scope: Scope) -> Any:
        found = (part.find(scope) for part in parts)
        return next((one for one in found if one is not None and one != ""), None)

    return Source(_all_said(parts, " or "), find)


def _joined(parts: list[Source], scope: Scope, separator: str) -> str | None:
    found = [part.find(scope) for part in parts]
    if len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    texts = [text for one in found if (text := text_in(one)) is not None]
    return separator.join(texts) if texts else None


def _pieces(text: str | None, scope: Scope) -> list[Piece] | None:
    if text is None:
        return None
    return from_plain(text) if scope.tells_quotes else [Piece(text, False)]


def _converted(inner: Text, convert: Converter, scope: Scope) -> list[Piece] | None:
    pieces = inner.find(scope._replace(tells_quotes=False) if scope.tells_quotes else scope)
    return None if pieces is None else convert("".join(piece.text for piece in pieces))


def _first_text(texts: list[Text], scope: Scope) -> list[Piece] | None:
    empty: list[Piece] | None = None
    for text in texts:
        pieces = text.find(scope)
        if pieces and any(piece.text for piece in pieces):
            return pieces
        empty = pieces if pieces is not None else empty
    return empty


def _joined_texts(texts: list[Text], scope: Scope, separator: str) -> list[Piece] | None:
    return _together([text.find(scope) for text in texts], separator)


def _spread(found: Any, separator: str, scope: Scope) -> list[Piece] | None:
    parts = found if isinstance(found, list) else [found]
    return _together([_pieces(text_in(part), scope) for part in parts], separator)


def _together(parts: list[list[Piece] | None], separator: str) -> list[Piece] | None:
    """Join texts. A text that repeats an earlier one appears once: a message may have its text in two formats."""
    joined: list[Piece] = []
    seen: set[Piece] = set()
    for part in parts:
        new = [piece for piece in part or () if piece.text and piece not in seen]
        if joined and new:
            joined.append(Piece(separator, joined[-1].is_quote))
        joined += new
        seen.update(new)
    return None if all(part is None for part in parts) else joined
