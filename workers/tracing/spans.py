"""Stages as spans of OpenTelemetry's SDK. Its variables (`OTEL_*`) choose the exporter, the sampler and the resource.

A span never has an exception's message, because that may repeat content: only the exception's type.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import entry_points, version
from types import TracebackType

import structlog
from opentelemetry.context import attach, detach
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
    OTEL_SPAN_LINK_COUNT_LIMIT,
)
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanContext, Status, StatusCode, Tracer, set_span_in_context

from workers.errors import Misconfigured
from workers.tracing.links import TRACEPARENT, EventLinks
from workers.tracing.reports import log_reports
from workers.tracing.stages import UNTRACED, RecordHeaders, Stages, Values

log = structlog.get_logger(__name__)

FLUSH_S = 3.0
"""How long the last export may take. A worker closes each part within 5 s."""

OTEL_TRACES_EXPORTER = "OTEL_TRACES_EXPORTER"
OTLP = ("otlp", "otlp_proto_http")
HTTP = "http/protobuf"


def recorded(worker_id: str) -> Stages:
    """Return stages that a thread of the SDK exports in batches. Its queue is bounded, and drops what is too much.

    Raises:
        Misconfigured: a variable has a wrong value.
    """
    name = os.environ.get(OTEL_TRACES_EXPORTER, "").strip() or OTLP[0]
    if name == "none":
        return UNTRACED
    try:
        exporter = _exporter(name)
        resource = Resource.create({"service.name": "guardline", "service.instance.id": worker_id})
        provider = TracerProvider(resource=resource.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        link_limit = _link_limit()
    except ValueError as error:
        raise Misconfigured(f"telemetry.traces: a variable OTEL_* has a wrong value: {error}") from error
    log_reports()
    return Spans(provider, link_limit)


def _exporter(name: str) -> SpanExporter:
    if name not in OTLP:
        found = next(iter(entry_points(group="opentelemetry_traces_exporter", name=name)), None)
        if found is None:
            raise Misconfigured(f"{OTEL_TRACES_EXPORTER}: no exporter {name!r} is installed (otlp, console, none are)")
        made: SpanExporter = found.load()()
        return made
    for variable in (OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_EXPORTER_OTLP_PROTOCOL):
        if os.environ.get(variable, HTTP) != HTTP:
            raise Misconfigured(f"{variable}: only {HTTP} is supported: the collector's port for it is usually 4318")
    from workers.tracing.otlp import exporter

    return exporter()


def _link_limit() -> int | None:
    """Return the variable's limit. Without it there is none: a micro-batch has at most `batch.max_count` events."""
    given = os.environ.get(OTEL_SPAN_LINK_COUNT_LIMIT, "").strip()
    return int(given) if given else None


class Spans:
    """Stages as spans.

    Guarantee: see `Stages`. The exporter runs in a thread of its own.
    """

    carried = frozenset({TRACEPARENT, "tracestate"})

    def __init__(self, provider: TracerProvider, link_limit: int | None = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("guardline", version("guardline"))
        self._link_limit = link_limit

    def stage(self, name: str, values: Values | None = None) -> _SpanStage:
        """Begin a span when its block begins, as a child of the block's own stage."""
        return _SpanStage(self._tracer, name, values, self._link_limit)

    async def close(self) -> None:
        """Export what is left, for `FLUSH_S` at most."""
        loop, has_ended = asyncio.get_running_loop(), asyncio.Event()

        def export() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # The loop may have ended before.
                loop.call_soon_threadsafe(has_ended.set)

        threading.Thread(target=export, name="last-spans", daemon=True).start()
        try:
            async with asyncio.timeout(FLUSH_S):
                await has_ended.wait()
        except TimeoutError:
            log.warning("the last spans could not be exported in time", within_s=FLUSH_S)


class _SpanStage:
    def __init__(self, tracer: Tracer, name: str, values: Values | None, link_limit: int | None) -> None:
        self._span = tracer.start_span(name, attributes=values)
        self._link_limit = link_limit

    @property
    def context(self) -> SpanContext:
        return self._span.get_span_context()

    def set(self, values: Values) -> None:
        self._span.set_attributes(values)

    def link(self, events: Iterable[RecordHeaders | None]) -> None:
        if self._span.is_recording():
            # The SDK would copy each link into objects of its own. It exports this attribute as it is.
            self._span._links = EventLinks(events, self._link_limit)  # type: ignore[attr-defined]

    def follow(self, contexts: Iterable[object | None]) -> None:
        for context in {context.span_id: context for context in contexts if isinstance(context, SpanContext)}.values():
            self._span.add_link(context)

    def __enter__(self) -> _SpanStage:
        self._token = attach(set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._span.set_status(Status(StatusCode.ERROR, kind.__name__))
        detach(self._token)
        self._span.end()
