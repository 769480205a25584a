"""Several events of one record: each gets its verdict once, whatever is killed, and none before all are judged."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from tests.chaos.faulty_worker import SLOW
from tests.site import Process, Site, eventually

pytestmark = pytest.mark.timeout(120)

FAULTY = (sys.executable, "-m", "tests.chaos.faulty_worker")

MAPPING = """
event_id: id
tenant_id: {topic: '^([^.]*)'}
texts: {title: title, body: body}
skip_when: {deleted: removed}
"""

POSTS = 40


def judged(worker: Process) -> int:
    """Count the micro-batches that were judged. Verdicts count only when the whole record is committed."""
    return int(worker.metric("guardline_batch_seconds_count"))


def test_the_events_of_a_record_get_a_verdict_each_across_a_kill_and_none_before_all_are_judged(site: Site) -> None:
    site.create_topics()
    gate, mapping = (Path(site.folder.name) / name for name in ("gate", "mapping.yaml"))
    gate.touch()
    mapping.write_text(MAPPING)
    site.environment["GUARDLINE_EVENTS__MAPPING"] = str(mapping)
    # A micro-batch for each event: titles are judged while bodies wait at the gate.
    batches = {"GUARDLINE_BATCH__MAX_COUNT": "1", "GUARDLINE_BATCH__IN_FLIGHT": "200"}
    victim = site.worker(*FAULTY, "slow", str(gate), **batches)
    eventually(lambda: victim.has_partitions, "partitions")
    posts = [{"id": n, "title": f"good morning {n}", "body": f"{SLOW} {n}"} for n in range(POSTS)]
    others = [{"id": "gone", "removed": True}, {"id": "nothing"}]
    site.produce((f"room-{n % 7}".encode(), json.dumps(post).encode()) for n, post in enumerate([*posts, *others]))
    eventually(lambda: judged(victim) == POSTS, "all titles are judged")
    site.produce([(b"room", json.dumps({"id": "later", "title": "good evening"}).encode())], topic=1)
    eventually(lambda: site.outcome().verdicts > 0, "what is judged as a whole is committed")
    assert site.outcome().verdicts == 1
    victim.send(signal.SIGKILL)
    victim.wait()
    gate.unlink()
    worker = site.worker()

    def are_committed() -> bool:
        offsets = site.committed()
        return all(offset < offsets.get((topic, n), -1) for topic, n, offset in site.sent)

    eventually(are_committed, "all records are committed, the skipped one included")
    outcome = site.outcome()
    found = {one[0]["event_id"].split("/")[0]: one for one in outcome.by_position.values() if "event_id" in one[0]}
    tenant = site.settings().topics.inputs[0].split(".")[0]
    for n in range(POSTS):
        assert [(one["event_id"], one["tenant_id"]) for one in found[str(n)]] == [
            (f"{n}/title", tenant),
            (f"{n}/body", tenant),
        ]
    assert (outcome.verdicts, outcome.dead_letters, len(outcome.by_position)) == (2 * POSTS + 1, 1, POSTS + 2)
    (letter,) = (one for documents in outcome.by_position.values() for one in documents if "reason" in one)
    assert (letter["reason"], letter["detail"]) == (
        b"missing_field",
        b"texts: 'title' or 'body' finds nothing in the record",
    )
    assert worker.metric('guardline_skipped_total{reason="deleted"}') == 1
