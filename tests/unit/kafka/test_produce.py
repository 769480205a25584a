"""The rows of a file become events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import pytest

from workers.core.decode import decode
from workers.errors import Misconfigured, Undecodable
from workers.kafka.produce import BEGINNING, Kind, filled, is_stream_event, messages, with_a_valid_event
from workers.settings import Events, Settings
from workers.streams.producing import stream_events

FILL = {"event_id": "row-1", "tenant_id": "acme"}


@pytest.mark.parametrize(
    ("row", "event_id", "tenant_id"),
    [
        (b'{"text": "hi"}', "row-1", "acme"),
        (b'{"text": "hi", "event_id": 7, "tenant_id": "own"}', "7", "own"),
        (b'{"text": "hi", "event_id": null, "tenant_id": ""}', "row-1", "acme"),
        (b'{"text": "hi", "nick": "\\ud83d", "score": NaN}', "row-1", "acme"),
    ],
)
def test_a_row_gets_the_fields_that_it_does_not_have(row: bytes, event_id: str, tenant_id: str) -> None:
    event = decode(filled(row, FILL), Events()).event
    assert (event["event_id"], event["tenant_id"], event["text"]) == (event_id, tenant_id, "hi")


@pytest.mark.parametrize("row", [b"{", b"[1]", b"\xff"])
def test_a_row_that_is_not_an_object_is_sent_as_it_is(row: bytes) -> None:
    assert filled(row, FILL) == row


def read(kind: Kind, line: bytes) -> tuple[str, bytes | None]:
    """Give the topic and the key of a line."""
    assert kind.destination is not None
    return kind.destination(["first", "second"], line)


def checked(lines: Iterable[bytes], fill: dict[str, str] | None = None, kind: Kind | None = None) -> list[bytes]:
    known = messages(Settings()) if kind is None else kind
    return [*with_a_valid_event(lines, partial(read, known), known.noun, None if fill is None else lambda _: fill)]


GOOD = b'{"tenant_id": "acme", "text": "hi"}\n'


@pytest.mark.parametrize(
    ("lines", "fill"),
    [
        ([b"\n", b"{\n", GOOD, b"{\n"], None),
        ([b"{\n"] * (BEGINNING - 1) + [GOOD], None),
        ([b'{"text": "hi"}\n'], FILL),
        ([b"\n", b"\n"], None),
        ([], None),
    ],
)
def test_lines_are_passed_on_where_the_beginning_holds_an_event(
    lines: list[bytes], fill: dict[str, str] | None
) -> None:
    assert checked(lines, fill) == lines


@pytest.mark.parametrize("lines", [[b"\n", b"id,text\n"], [b"id,text\n"] * BEGINNING + [GOOD], [b'{"text": "hi"}\n']])
def test_an_input_without_a_valid_event_at_its_beginning_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(
        Misconfigured, match=r"^nothing was sent: the first (line holds|\d\d* lines hold) no valid event; line"
    ):
        checked(lines)


def test_a_valid_event_is_passed_on_before_the_next_line_is_read() -> None:
    def endless() -> Iterator[bytes]:
        yield GOOD
        raise AssertionError("the second line was read")

    assert next(with_a_valid_event(endless(), partial(read, messages(Settings())), "event")) == GOOD


DELTA = b'{"kind": "delta", "stream_id": "answer-1", "tenant_id": "acme", "seq": 2, "text": "hi"}'
OPEN = b'{"kind": "open", "stream_id": 7, "tenant_id": "acme", "seq": 0}'


@pytest.mark.parametrize("line", [DELTA, OPEN])
def test_a_stream_event_is_not_taken_for_a_message(line: bytes) -> None:
    with pytest.raises(Misconfigured, match=r"^nothing was sent: line 2 is a stream event: .* --streams`$"):
        checked([b"\n", line, GOOD])


@pytest.mark.parametrize(
    "line",
    [
        GOOD,
        b'{"tenant_id": "acme", "text": "\\"stream_id\\" and \\"kind\\""}',
        b'{"tenant_id": "acme", "text": "hi", "stream_id": "s", "kind": "live", "seq": 1}',
        b'{"tenant_id": "acme", "text": "hi", "stream_id": "s"}',
        b'{"stream_id"',
        b'["stream_id"]',
    ],
)
def test_what_only_looks_like_a_stream_event_is_a_message(line: bytes) -> None:
    assert not is_stream_event(line)


@pytest.mark.parametrize(("line", "key"), [(DELTA, b"answer-1"), (OPEN, b"7")])
def test_a_stream_event_has_its_stream_as_its_key(line: bytes, key: bytes) -> None:
    assert read(stream_events(Settings()), line) == ("first", key)


def test_a_message_is_not_taken_for_a_stream_event() -> None:
    with pytest.raises(Undecodable, match="kind"):
        read(stream_events(Settings()), GOOD)
    with pytest.raises(Misconfigured, match="no valid stream event; line 1: kind"):
        checked([GOOD], kind=stream_events(Settings()))
