"""The rows of a file become events."""

from __future__ import annotations

import pytest

from workers.core.decode import decode
from workers.kafka.produce import filled
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
