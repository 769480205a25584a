"""The metrics of a whole worker: alerts and dashboards depend on them."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.site import Site, eventually

MAX_BYTES = 1_000


def event(event_id: str, text: str, tenant: str = "acme") -> tuple[bytes, bytes]:
    return b"k", json.dumps({"event_id": event_id, "tenant_id": tenant, "surface": "chat", "text": text}).encode()


def test_the_metrics_count_the_work(site: Site) -> None:
    site.create_topics()
    policy = Path(site.folder.name) / "policy.yaml"
    policy.write_text("safe: review\ncontroversial: review\nunsafe: review\n")
    site.command("policy", "set", "acme", policy)
    policy.write_text("safe: allow\ncontroversial: allow\nunsafe: block\n")
    site.command("policy", "set", "other", policy)
    worker = site.worker(GUARDLINE_EVENTS__MAX_BYTES=str(MAX_BYTES))
    began_ms = int(time.time() * 1000)
    site.produce([event("one", "good morning"), (b"k", b"{"), (b"k", None), event("large", "x" * MAX_BYTES)])
    site.produce([event("two", "good evening"), event("three", "good evening everyone", "other")], topic=1)
    site.produce([(b"k", b'{"event_id": 1, "tenant_id": "acme", "language": 7, "text": ""}')], topic=1)
    site.check()
    # The first is a duplicate, the other has content that was judged for its tenant.
    site.produce([event("one", "good morning"), event("again", "good evening")])
    outcome = site.check()
    ended_ms = int(time.time() * 1000)

    eventually(lambda: worker.metric("guardline_records_committed_total") == 9, "all are committed")
    inputs = site.settings().topics.inputs
    expected = {
        f'guardline_records_received_total{{topic="{inputs[0]}"}}': 6,
        f'guardline_records_received_total{{topic="{inputs[1]}"}}': 3,
        'guardline_dead_letters_total{reason="not_json"}': 1,
        'guardline_skipped_total{reason="tombstone"}': 1,
        'guardline_ignored_fields_total{field="language"}': 1,
        'guardline_dead_letters_total{reason="too_large"}': 1,
        'guardline_decisions_total{decision="review"}': 4,
        'guardline_decisions_total{decision="allow"}': 2,
        "guardline_duplicates_total": 1,
        "guardline_assessments_reused_total": 2,
        "guardline_unavailable_total": 0,
        "guardline_stale_completions_total": 0,
        "guardline_aborts_total": 0,
        "guardline_uncommitted_records": 0,
        "guardline_intake_paused": 0,
        "guardline_redis_up": 1,
    }
    assert {name: worker.metric(name) for name in expected} == expected
    assert worker.metric("guardline_commit_seconds_count") > 0
    assert 0 < worker.metric("guardline_commit_seconds_sum") < (ended_ms - began_ms) / 1000
    assert worker.metric("guardline_batch_seconds_count") >= 2
    for documents in outcome.by_position.values():
        if "timings" in documents[0]:
            assert began_ms <= documents[0]["timings"]["received_at"] <= ended_ms
            assert 0 <= documents[0]["timings"]["judged_ms"] < ended_ms - began_ms
