"""Rebalances at the worst moment: with work at the engine, and with callbacks that fail."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.chaos.faulty_worker import AT_THE_GATE, SLOW
from tests.site import Site, eventually

pytestmark = pytest.mark.timeout(120)

FAULTY = (sys.executable, "-m", "tests.chaos.faulty_worker")
KEYS = 24
"""Enough for every partition to have some."""


def same_text(site: Site, text: str, keys: range, topic: int) -> None:
    site.produce(
        (
            (
                f"room-{key}".encode(),
                json.dumps(
                    {
                        "event_id": f"{text} {key} {topic}",
                        "tenant_id": "acme",
                        "surface": "chat",
                        "text": f"good day, {text}",
                    }
                ).encode(),
            )
            for key in keys
        ),
        topic=topic,
    )


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_content_in_flight_on_a_revoked_and_a_kept_partition_is_judged_for_both(site: Site, protocol: str) -> None:
    """Each text is at the engine for one partition, and awaited by all others, when half of them are revoked.

    Six texts with one partition each for an owner: some owners go away and some waiters do. More flights than
    `batch.in_flight`, so that the last ones have not begun when the revoke comes.
    """
    site.use(protocol)
    site.create_topics()
    gate = Path(site.folder.name) / "gate"
    first = site.worker(*FAULTY, "gate", str(gate))
    eventually(lambda: first.has_partitions, "partitions")
    gate.touch()
    texts = [f"text {number}" for number in range(6)]
    for number, text in enumerate(texts):
        same_text(site, text, range(number, number + 1), topic=number % 2)
    eventually(lambda: f"good day, {texts[0]}" in first.text, "a text is at the engine")
    for text in texts:
        for topic in (0, 1):
            same_text(site, text, range(len(texts), KEYS), topic)
    second = site.worker()
    eventually(lambda: "partitions revoked" in first.text, "a revoke while all is in flight")
    eventually(lambda: second.has_partitions, "the second has partitions")
    eventually(lambda: 0 < site.answered() < len(site.sent), "the second answers for what it got")
    gate.unlink()
    site.check()
    for worker in (first, second):
        assert worker.popen.poll() is None, worker.text


@pytest.mark.parametrize("callback", ["assign", "revoke"])
def test_a_callback_that_fails_ends_the_worker_without_a_commit(site: Site, callback: str) -> None:
    """An exception that leaves a callback frees the polled batch; one that is swallowed leaves a ledger that lies."""
    site.create_topics()
    failing = site.worker(*FAULTY, callback)
    if callback == "revoke":
        eventually(lambda: failing.has_partitions, "partitions")
    site.events(300)
    if callback == "revoke":
        eventually(lambda: site.answered() > 0, "first verdicts")
        site.worker()
    assert failing.wait() == 1, failing.text
    assert f"a rebalance could not be handled: injected into {callback}" in failing.text
    assert "Traceback" not in failing.text
    if callback == "assign":
        assert not site.committed()
        site.worker()
    site.events(100, start=300)
    site.check()


def test_a_slow_record_delays_only_its_own_partition(site: Site) -> None:
    """Marks so small that the partition alone would fill the ledger, many times over."""
    site.create_topics()
    gate = Path(site.folder.name) / "gate"
    gate.touch()
    worker = site.worker(
        *FAULTY,
        "slow",
        str(gate),
        GUARDLINE_BATCH__MAX_COUNT="16",
        GUARDLINE_BATCH__LOW_WATER="100",
        GUARDLINE_BATCH__HIGH_WATER="1000",
    )
    eventually(lambda: worker.has_partitions, "partitions")
    site.events(1, keys=1, text=SLOW)
    slow = site.sent[0]
    eventually(lambda: AT_THE_GATE in worker.text, "it is at the engine")
    site.events(6000, start=1)
    others = [position for position in site.sent if position[:2] != slow[:2]]
    eventually(lambda: site.outcome().by_position.keys() >= set(others), "all other partitions are answered")
    assert not any(position[:2] == slow[:2] for position in site.outcome().by_position)
    gate.unlink()
    site.check()
    assert worker.popen.poll() is None
