"""Stages as spans, and what a wrong variable or a collector that is down does."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from structlog.testing import capture_logs

from tests.unit.tracing.test_links import PARENT, traced
from workers.errors import Misconfigured
from workers.tracing import spans as spans_module
from workers.tracing.reports import LOGGERS, Reports
from workers.tracing.spans import Spans, recorded
from workers.tracing.stages import UNTRACED, stages_of


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Spans:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Spans(provider)


@pytest.fixture
def quiet_loggers() -> Iterator[None]:
    before = {name: (list(logging.getLogger(name).handlers), logging.getLogger(name).propagate) for name in LOGGERS}
    yield
    for name, (handlers, propagates) in before.items():
        logging.getLogger(name).handlers[:] = handlers
        logging.getLogger(name).propagate = propagates


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


async def test_a_stage_is_a_child_of_the_stage_around_it_also_in_another_task(
    spans: Spans, exporter: InMemorySpanExporter
) -> None:
    async def inner(name: str) -> None:
        with spans.stage(name):
            await asyncio.sleep(0)

    with spans.stage("micro-batch", {"messaging.batch.message_count": 2}):
        await asyncio.gather(inner("dedup"), inner("engine"))
    found = by_name(exporter)
    whole = found["micro-batch"]
    assert whole.parent is None
    assert dict(whole.attributes or {}) == {"messaging.batch.message_count": 2}
    assert {span.parent.span_id for span in (found["dedup"], found["engine"]) if span.parent and span.parent} == {
        whole.context.span_id if whole.context else 0
    }


def test_a_span_links_to_all_its_events_and_to_earlier_stages(spans: Spans, exporter: InMemorySpanExporter) -> None:
    events = [traced(f"00-{number + 1:032x}-{number + 1:016x}-01".encode()) for number in range(300)]
    with spans.stage("micro-batch") as batch:
        batch.link([None, *events])
    with spans.stage("commit") as commit:
        commit.follow([batch.context, None, batch.context])
    found = by_name(exporter)
    assert [link.context.trace_id for link in found["micro-batch"].links] == list(range(1, 301))
    assert [link.context for link in found["commit"].links] == [found["micro-batch"].context]


def test_a_stage_that_fails_names_the_type_of_the_error_and_not_its_message(
    spans: Spans, exporter: InMemorySpanExporter
) -> None:
    with pytest.raises(ValueError, match="secret"), spans.stage("engine"):
        raise ValueError("secret")
    (span,) = exporter.get_finished_spans()
    assert (span.status.is_ok, span.status.description) == (False, "ValueError")
    assert "secret" not in span.to_json()


def test_links_are_not_made_for_a_span_that_the_sampler_drops() -> None:
    def never() -> Iterator[None]:
        pytest.fail("the headers were read")
        yield

    with Spans(TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)).stage("micro-batch") as stage:
        stage.link(never())


def test_the_limit_of_the_variable_is_kept(monkeypatch: pytest.MonkeyPatch, exporter: InMemorySpanExporter) -> None:
    monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "2")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with Spans(provider, spans_module._link_limit()).stage("micro-batch") as stage:
        stage.link([traced(PARENT + b"01")] * 3)
    assert len(exporter.get_finished_spans()[0].links) == 2


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("OTEL_TRACES_EXPORTER", "jaeger", "OTEL_TRACES_EXPORTER: no exporter 'jaeger' is installed"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf is supported"),
        ("OTEL_SPAN_LINK_COUNT_LIMIT", "many", "telemetry.traces: a variable OTEL_* has a wrong value"),
    ],
)
def test_a_wrong_variable_is_refused_at_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(Misconfigured) as refused:
        recorded("w")
    assert sentence in str(refused.value)


def test_no_exporter_and_no_setting_make_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert stages_of(True, "w") is UNTRACED
    assert stages_of(False, "w") is UNTRACED


@pytest.mark.usefixtures("quiet_loggers")
async def test_a_collector_that_is_down_delays_no_stage_and_ends_within_its_limit(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    monkeypatch.setattr(spans_module, "FLUSH_S", 0.5)
    loop = asyncio.get_running_loop()
    with capture_logs() as lines:
        stages = recorded("w")
        for _ in range(500):
            with stages.stage("micro-batch") as stage:
                stage.link([traced(PARENT + b"01")])
        began = loop.time()
        await stages.close()
        assert loop.time() - began < 5
    reports = [line for line in lines if line["event"] == "traces are not exported as they should be"]
    assert 1 <= len(reports) <= 8, "one line for each kind of report"
    assert capfd.readouterr().err == "", "every line of a worker's log is JSON"


def test_a_report_is_logged_once_in_a_while() -> None:
    reports = Reports()
    with capture_logs() as lines:
        for number in range(5):
            for message in ("cannot reach %s", "queue is full"):
                arguments = (number,) if "%s" in message else ()
                reports.handle(logging.LogRecord("opentelemetry.x", logging.WARNING, "f", 1, message, arguments, None))
    assert [line["report"] for line in lines] == ["cannot reach 0", "queue is full"]


def test_a_worker_without_traces_imports_neither_its_spans_nor_the_tracing_sdk() -> None:
    """redis-py imports the metrics of OpenTelemetry if they are installed, and these are part of the extra."""
    program = "import sys, workers.moderation.worker; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "workers.tracing.stages" in found
    unwanted = ("workers.tracing.spans", "opentelemetry.sdk.trace", "opentelemetry.exporter", "google.protobuf")
    assert [name for name in found if name.startswith(unwanted)] == []
