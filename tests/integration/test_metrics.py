"""The metrics of a whole worker: alerts and dashboards depend on them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from tests.site import Site, eventually

MAX_BYTES = 1_000


def event(event_id: str, text: str, tenant: str = "acme") -> tuple[bytes, bytes]:
    return b"k", json.dumps({"event_id": event_id, "tenant_id": tenant, "surface": "chat", "text": text}).encode()


def usage_of(site: Site, *flags: str) -> dict[str, tuple[int, int]]:
    """Return the events and cache hits of each tenant that `guardline usage` prints."""
    rows = [json.loads(line) for line in site.command("usage", "--json", *flags).stdout.splitlines()]
    assert all(row["tokens"] > 0 and row["engine_ms"] > 0 for row in rows)
    return {row["tenant_id"]: (row["events"], row["cache_hits"]) for row in rows}


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
    eventually(lambda: worker.metric("guardline_uncommitted_records") == 0, "nothing is held")
    # The lag is worked out four times a second, and its ends are those of the last statistics.
    eventually(lambda: worker.metric("guardline_lag_records") == worker.metric("guardline_lag_seconds") == 0, "no lag")
    assert worker.metric('guardline_rebalances_total{kind="assigned"}') >= 1
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
        'guardline_transactions_total{result="aborted"}': 0,
        "guardline_oldest_deadline_seconds": 30,
        "guardline_oldest_uncommitted_seconds": 0,
        "guardline_assigned_partitions": 8,
        "guardline_intake_paused": 0,
        "guardline_redis_up": 1,
    }
    expected |= {
        "guardline_policies": 2,
        "guardline_policy_change": 2,
        "guardline_policies_refused_total": 0,
        'guardline_open_circuits{circuit="redis_lookups"}': 0,
        'guardline_open_circuits{circuit="model_servers"}': 0,
        'guardline_failed_attempts_total{at="engine"}': 0,
        "guardline_event_to_commit_seconds_count": 0,
        "guardline_intake_to_commit_seconds_count": 9,
        "guardline_batch_events_sum": 6,
    }
    assert {name: worker.metric(name) for name in expected} == expected
    batches = worker.metric("guardline_batch_events_count")
    assert worker.metric("guardline_queue_seconds_count") == batches
    assert worker.metric("guardline_engine_call_seconds_count") >= 1
    assert worker.metric("guardline_engine_prompts_total") >= 3
    assert worker.metric("guardline_engine_tokens_total") > 20 * worker.metric("guardline_engine_prompts_total")
    assert worker.metric("guardline_commit_seconds_count") > 0
    assert 0 < worker.metric("guardline_commit_seconds_sum") < (ended_ms - began_ms) / 1000
    assert worker.metric("guardline_batch_seconds_count") >= 2
    assert usage_of(site) == {"acme": (5, 2), "other": (1, 0)}
    assert usage_of(site, "--tenant", "other", "--since", "2026-01-01T00:00:00Z", "--by", "day") == {"other": (1, 0)}
    assert usage_of(site, "--until", "2026-01-01T00:00:00+02:00") == {}
    assert "│ acme   │ 5 " in site.command("usage").stdout
    for documents in outcome.by_position.values():
        if "timings" in documents[0]:
            assert began_ms <= documents[0]["timings"]["received_at"] <= ended_ms
            assert 0 <= documents[0]["timings"]["judged_ms"] < ended_ms - began_ms


def test_the_lag_and_the_deadline_show_what_waits_for_the_engine(site: Site) -> None:
    """Also while backpressure pauses all partitions, when the consumer itself learns of no new record."""
    site.create_topics()
    gate = Path(site.folder.name) / "gate"
    worker = site.worker(
        *(sys.executable, "-m", "tests.chaos.faulty_worker", "gate", gate),
        GUARDLINE_BATCH__MAX_COUNT="10",
        GUARDLINE_BATCH__LOW_WATER="20",
        GUARDLINE_BATCH__HIGH_WATER="60",
        GUARDLINE_WORKER__TARGET_S="1",
    )
    eventually(lambda: worker.has_partitions, "it has partitions")
    gate.touch()
    site.events(400)
    eventually(lambda: worker.metric("guardline_intake_paused") == 1, "intake pauses")
    site.events(100, 400)
    eventually(lambda: worker.metric("guardline_lag_records") == 500, "the lag counts what is unread")
    eventually(lambda: worker.metric("guardline_oldest_deadline_seconds") < 0, "the target is missed")
    assert worker.metric("guardline_lag_seconds") > 1
    assert worker.metric("guardline_oldest_uncommitted_seconds") > 1
    assert worker.metric("guardline_records_committed_total") == 0
    gate.unlink()
    site.check()
    eventually(lambda: worker.metric("guardline_lag_records") == 0, "the lag is 0")
    eventually(lambda: worker.metric("guardline_oldest_deadline_seconds") == 1, "no event waits")
    eventually(lambda: worker.metric("guardline_lag_seconds") == 0, "no lag")
    eventually(lambda: worker.metric("guardline_oldest_uncommitted_seconds") == 0, "nothing is held")
    assert worker.metric("guardline_pauses_total") >= 1
    assert worker.metric("guardline_paused_seconds_total") > 1
    assert worker.metric("guardline_intake_to_commit_seconds_count") == 500
    assert worker.metric("guardline_intake_to_commit_seconds_sum") > 1
