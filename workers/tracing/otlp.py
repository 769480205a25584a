"""The OTLP exporter, with links to events that are encoded already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter

from workers.tracing.links import EventLinks


def exporter() -> SpanExporter:
    """Return the SDK's exporter for OTLP over HTTP. It encodes spans by `encoded`.

    If a version of the SDK does not call that function, it encodes the links by itself, which takes longer.
    """
    trace_exporter.encode_spans = encoded  # type: ignore[attr-defined]  # imported there, and called by this name
    return trace_exporter.OTLPSpanExporter()


def encoded(sdk_spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """Encode spans. Protobuf merges the encoded links into their span: 0.1 µs a link."""
    links: dict[bytes, bytes] = {}
    plain: list[Any] = []
    for span in sdk_spans:
        own = span._links
        if isinstance(own, EventLinks) and span.context is not None:
            links[span.context.span_id.to_bytes(8, "big")] = own.encoded
            plain.append(_WithoutLinks(span))
        else:
            plain.append(span)
    request = encode_spans(plain)
    if links:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for message in scope.spans:
                    if (own_links := links.get(message.span_id)) is not None:
                        message.MergeFromString(own_links)
    return request


class _WithoutLinks:
    links = ()
    dropped_links = 0

    def __init__(self, span: ReadableSpan) -> None:
        self._span = span

    def __getattr__(self, name: str) -> Any:
        return getattr(self._span, name)
