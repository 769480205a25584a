"""The rows of a file become events."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from workers.core.decode import decode
from workers.errors import Misconfigured
from workers.kafka.produce import BEGINNING, filled, with_a_valid_event
from workers.settings import Events

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
    assert [*with_a_valid_event(lines, Events(), fill)] == lines


@pytest.mark.parametrize("lines", [[b"\n", b"id,text\n"], [b"id,text\n"] * BEGINNING + [GOOD], [b'{"text": "hi"}\n']])
def test_an_input_without_a_valid_event_at_its_beginning_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(
        Misconfigured, match=r"^nothing was sent: the first (line holds|\d\d* lines hold) no valid event; line"
    ):
        with_a_valid_event(lines, Events(), None)


def test_a_valid_event_is_passed_on_before_the_next_line_is_read() -> None:
    def endless() -> Iterator[bytes]:
        yield GOOD
        raise AssertionError("the second line was read")

    assert next(with_a_valid_event(endless(), Events(), None)) == GOOD
