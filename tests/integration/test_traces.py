"""Traces of a whole worker, from the headers of events to a collector; and that content is only in the outputs."""

from __future__ import annotations

import json
import secrets
import signal
import sys
from collections import Counter
from pathlib import Path

from tests.collector import Collector, collecting
from tests.site import Process, Site, eventually
from workers.kafka.intake import headers_of
from workers.kafka.reader import read

EVENTS = 300


def traced_worker(site: Site, collector: Collector, *program: str | Path, **changes: str) -> Process:
    variables = {
        "GUARDLINE_TELEMETRY__TRACES": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }
    return site.worker(*program, **{**variables, **changes})


def event(number: int, text: str) -> bytes:
    return json.dumps({"event_id": f"e{number}", "tenant_id": "acme", "surface": "chat", "text": text}).encode()


def parent_of(number: int, flags: str = "01") -> bytes:
    return f"00-{number + 1:032x}-{number + 1:016x}-{flags}".encode()


def test_spans_link_to_every_event_and_the_verdict_carries_the_trace(site: Site) -> None:
    site.create_topics()
    with collecting() as collector:
        worker = traced_worker(
            site,
            collector,
            GUARDLINE_EVENTS__CARRY_HEADERS="[]",
            GUARDLINE_WORKER__ID="traced",
            OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        )
        site.produce(
            ((b"k", event(number, f"good morning {number}")) for number in range(EVENTS)),
            headers=lambda number: [("x", b"y"), ("traceparent", parent_of(number)), ("tracestate", b"a=1")],
        )
        dead, unrecorded = EVENTS, EVENTS + 1
        site.produce([(b"k", b"{")], headers=[("traceparent", parent_of(dead))])
        site.produce(
            [(b"k", event(unrecorded, "not recorded"))], headers=[("traceparent", parent_of(unrecorded, "00"))]
        )
        site.produce([(b"k", event(unrecorded + 1, "no trace"))])
        site.check()
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0, worker.text
    settings = site.settings()
    for message in read(settings.kafka, [settings.topics.verdicts], from_beginning=True, follow=False):
        if message is not None:
            number = int(json.loads(message.value() or b"")["event_id"].removeprefix("e"))
            carried = [("traceparent", parent_of(number)), ("tracestate", b"a=1")]
            if number >= EVENTS:
                carried = [("traceparent", parent_of(number, "00"))] if number == unrecorded else []
            assert headers_of(message) == carried

    batches, commits = collector.named("micro-batch"), collector.named("commit")
    linked = Counter(int.from_bytes(link.trace_id, "big") - 1 for batch in batches for link in batch.links)
    assert linked == Counter(range(EVENTS))
    (letter,) = [link for decode in collector.named("decode") for link in decode.links]
    assert int.from_bytes(letter.span_id, "big") - 1 == dead
    followed = {link.span_id for commit in commits for link in commit.links}
    assert followed == {batch.span_id for batch in batches}
    for name in ("dedup", "engine", "decide"):
        assert {span.parent_span_id for span in collector.named(name)} <= {batch.span_id for batch in batches}
        assert collector.named(name)
    assert sum(
        value.value.int_value for span in commits for value in span.attributes if value.key == "guardline.records"
    ) == (EVENTS + 3)
    assert len(collector.spans) < EVENTS * 5, "spans belong to micro-batches, not to events"
    assert collector.resources[0]["service.name"] == "guardline"
    assert collector.resources[0]["service.instance.id"] == "traced"


FIELDS = (
    "text",
    "author",
    "conversation",
    "attribute",
    "value",
    "context",
    "language",
    "header",
    "key",
    "created",
    "extra",
)


def test_no_content_is_in_logs_spans_metrics_or_usage(site: Site) -> None:
    """Ids of tenants are in the records of usage, and positions are in the log: both are documented."""
    canary = {field: f"canary-{field}-{secrets.token_hex(8)}" for field in FIELDS}
    whole = {
        "tenant_id": "acme",
        "surface": "chat",
        "text": canary["text"],
        "author_id": canary["author"],
        "conversation_id": canary["conversation"],
        "language": canary["language"],
        "created_at": canary["created"],
        "attributes": {canary["attribute"]: canary["value"]},
        "context": [{"role": "user", "text": canary["context"]}],
        canary["extra"]: canary["extra"],
    }
    first = json.dumps({**whole, "event_id": canary["conversation"]}).encode()
    values = [
        first,
        first,
        json.dumps({**whole, "event_id": "", "role": canary["value"]}).encode(),
        json.dumps({**whole, "attributes": canary["text"], "context": canary["context"]}).encode(),
        json.dumps({**whole, "text": canary["text"] * 5_000}).encode(),
        json.dumps({**whole, "text": {"a": canary["text"]}}).encode(),
        json.dumps({**whole, "tenant_id": None}).encode(),
        json.dumps({**whole, "text": f"{canary['text']} \ud800"}).encode(),
        f'{{"text": "{canary["text"]}'.encode(),
        canary["text"].encode("utf-16"),
        b"\xff" + canary["text"].encode(),
    ]
    down = Path(site.folder.name) / "down"
    site.create_topics()
    with collecting() as collector:
        worker = traced_worker(
            site,
            collector,
            *(sys.executable, "-m", "tests.chaos.faulty_worker", "down", str(down)),
            GUARDLINE_WORKER__UNAVAILABLE_AFTER_S="1",
        )
        eventually(lambda: worker.has_partitions, "partitions")
        down.touch()
        headers = [
            ("traceparent", canary["header"].encode()),
            (canary["header"], b"x"),
            ("author", canary["author"].encode()),
        ]
        site.produce([(canary["key"].encode(), value) for value in values[:4]], headers=headers)
        eventually(
            lambda: "could not be judged" in worker.text, "the engine has failed for longer than the retries last"
        )
        down.unlink()
        site.produce([(canary["key"].encode(), value) for value in values], headers=headers)
        site.check()
        metrics = worker.get("/metrics")[1]
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0, worker.text
    settings = site.settings()
    records = read(settings.kafka, [settings.topics.usage], from_beginning=True, follow=False)
    usage = [(message.key() or b"") + (message.value() or b"") for message in records if message is not None]
    spans = b"".join(collector.bodies)
    assert {"micro-batch", "engine", "decide", "commit", "decode"} <= {span.name for span in collector.spans}
    assert any(span.status.message for span in collector.named("engine")), "a failed call is among the spans"
    assert 'guardline_dead_letters_total{reason="not_json"} ' in metrics
    assert usage
    told = {"log": worker.text.encode(), "spans": spans, "metrics": metrics.encode(), "usage": b"".join(usage)}
    found = [
        (where, name) for where, content in told.items() for name, word in canary.items() if word.encode() in content
    ]
    assert found == []
    assert any(
        canary["text"].encode() in (document.get("value") or b"")
        for documents in site.outcome().by_position.values()
        for document in documents
    ), "the canary is in the outputs"
