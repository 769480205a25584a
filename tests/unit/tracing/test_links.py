"""Links to the traces of events, encoded and as objects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, TraceFlags

from workers.tracing.links import EventLinks
from workers.tracing.otlp import encoded
from workers.tracing.stages import RecordHeaders

PARENT = b"00-" + b"0af7651916cd43dd8448eb211c80319c" + b"-b7ad6b7169203331-"


def traced(value: bytes | None) -> RecordHeaders:
    return [("other", b"x"), ("traceparent", value), ("tracestate", b"a=1")]


@pytest.mark.parametrize("flags", [b"01", b"03", b"ff"])
def test_an_event_of_a_recorded_trace_is_linked(flags: bytes) -> None:
    (link,) = EventLinks([None, [], [("other", None)], traced(PARENT + flags)])
    assert (f"{link.context.trace_id:x}", f"{link.context.span_id:x}", link.context.is_remote) == (
        "af7651916cd43dd8448eb211c80319c",
        "b7ad6b7169203331",
        True,
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff\xfe",
        PARENT + b"00",
        PARENT + b"0",
        PARENT + b"0G",
        PARENT.upper() + b"01",
        b"ff" + PARENT[2:] + b"01",
        b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-" + b"0" * 16 + b"-01",
        b" " + PARENT + b"01",
    ],
)
def test_an_event_whose_trace_is_not_recorded_or_not_valid_is_not_linked(value: bytes | None) -> None:
    assert len(EventLinks([traced(value)])) == 0


ids = st.tuples(st.binary(min_size=16, max_size=16).filter(any), st.binary(min_size=8, max_size=8).filter(any))


@given(st.lists(ids, max_size=20), st.none() | st.integers(0, 20))
def test_the_encoded_links_are_those_that_the_sdk_would_encode(
    found: list[tuple[bytes, bytes]], limit: int | None
) -> None:
    events = [traced(f"00-{trace_id.hex()}-{span_id.hex()}-01".encode()) for trace_id, span_id in found]
    links = EventLinks(events, limit)
    assert len(links) == min(len(found), len(found) if limit is None else limit)
    own = SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(1))
    ours, theirs = ReadableSpan("batch", own, links=links), ReadableSpan("batch", own, links=list(links))
    sdk = encode_spans([theirs])
    for link in sdk.resource_spans[0].scope_spans[0].spans[0].links:
        link.flags |= 1  # The SDK leaves the trace's own flags out.
    assert encoded([ours]) == sdk
