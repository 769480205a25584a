from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.gateway.faults import BadUpstream
from workers.gateway.sse import EventReader, event

MAX = 200


def read(*portions: bytes, max_bytes: int = MAX) -> list[str]:
    reader = EventReader(max_bytes)
    found = [data for portion in portions for data in reader.feed(portion)]
    return [*found, *reader.end()]


@pytest.mark.parametrize(
    ("text", "events"),
    [
        (b"data: a\n\ndata: b\n\n", ["a", "b"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
        (b"data: a\r\rdata: b\r\r", ["a", "b"]),
        (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
        (b": a comment\n\ndata: a\n: another\n\n", ["a"]),
        (b"data: a\ndata: b\n\n", ["a\nb"]),
        (b"event: x\nid: 7\nretry: 5\nunknown\ndata:a\n\n", ["a"]),
        (b"data:  a\n\n", [" a"]),
        (b"data\n\n", [""]),
        (b"event: ping\n\n", []),
        (b"data: a", ["a"]),
        (b"", []),
    ],
)
def test_events_are_read_as_the_standard_says(text: bytes, events: list[str]) -> None:
    assert read(text) == events
    assert read(*(text[at : at + 1] for at in range(len(text)))) == events


def test_an_event_larger_than_the_bound_ends_the_stream() -> None:
    for endless in (b"data: " + b"x" * 300, b"data: xxxxxxxxx\n" * 30, b":" + b"x" * 300):
        with pytest.raises(BadUpstream, match="more than 200 bytes"):
            read(*(endless[at : at + 7] for at in range(0, len(endless), 7)))


def test_bytes_that_are_not_utf_8_end_the_stream() -> None:
    with pytest.raises(BadUpstream, match="not UTF-8"):
        read(b"data: \xff\n\n")


@given(st.lists(st.text(max_size=20)), st.data())
def test_events_do_not_depend_on_how_their_bytes_are_divided(texts: list[str], data: st.DataObject) -> None:
    written = b"".join(event({"text": text}) for text in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=8)))
    portions = [written[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(written)], strict=True)]
    assert [json.loads(found)["text"] for found in read(*portions, max_bytes=10_000)] == texts
