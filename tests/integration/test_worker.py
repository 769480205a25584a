"""A whole worker with an engine that is slower than the input, an engine that fails, and a restart."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from tests.site import Site, eventually

FAULTY = (sys.executable, "-m", "tests.chaos.faulty_worker")

pytestmark = pytest.mark.timeout(120)


def test_an_engine_slower_than_the_input_costs_neither_memory_nor_membership(site: Site) -> None:
    site.create_topics()
    gate = Path(site.folder.name) / "gate"
    high_water = 700
    worker = site.worker(
        *FAULTY,
        "gate",
        str(gate),
        GUARDLINE_BATCH__LOW_WATER="650",  # A poll of 500 records would exceed the high-water mark.
        GUARDLINE_BATCH__HIGH_WATER=str(high_water),
        GUARDLINE_KAFKA__MAX_POLL_INTERVAL_S="5",
        GUARDLINE_KAFKA__TRANSACTION_TIMEOUT_S="2",
    )
    eventually(lambda: worker.has_partitions, "partitions")
    gate.touch()
    site.events(3000)
    eventually(lambda: worker.metric("guardline_intake_paused") == 1, "the intake is paused")
    waits_until = time.monotonic() + 6
    held = []

    def has_waited() -> bool:
        held.append(worker.metric("guardline_uncommitted_records"))
        return time.monotonic() > waits_until

    eventually(has_waited, "the engine was slower than kafka.max_poll_interval_s")
    assert high_water / 2 < max(held) <= high_water
    assert site.answered() == 0
    gate.unlink()
    site.check()
    assert worker.text.count("partitions assigned") == 1, worker.text
    assert worker.metric("guardline_intake_paused") == 0


def test_a_worker_that_waits_for_a_killed_member_logs_it_once(site: Site) -> None:
    site.create_topics()
    killed = site.worker(GUARDLINE_KAFKA__SESSION_TIMEOUT_S="25")
    eventually(lambda: killed.has_partitions, "partitions")
    killed.send(signal.SIGKILL)
    killed.wait()
    worker = site.worker(GUARDLINE_KAFKA__SESSION_TIMEOUT_S="25")
    eventually(lambda: worker.has_partitions, "partitions of the one that was killed", 60)
    before, _, after = worker.text.partition("partitions assigned")
    assert before.count("waiting for partitions") == 1
    assert "kafka.session_timeout_s" in before
    assert "waiting for partitions" not in killed.text + after


def test_on_unavailable_decides_while_the_engine_is_down(site: Site) -> None:
    site.create_topics()
    down = Path(site.folder.name) / "down"
    policy = Path(site.folder.name) / "policy.yaml"
    policy.write_text("safe: allow\non_unavailable: block\n")
    site.command("policy", "set", "acme", policy)
    worker = site.worker(*FAULTY, "down", str(down), GUARDLINE_WORKER__UNAVAILABLE_AFTER_S="1")
    eventually(lambda: worker.has_partitions, "partitions")
    down.touch()
    site.events(100)
    site.check()
    down.unlink()
    site.events(100, start=100)
    outcome = site.check()
    verdicts = [outcome.by_position[position][0] for position in site.sent]
    assert {(verdict["assessment"], verdict["decision"]) for verdict in verdicts[:100]} == {(None, "block")}
    assert all(verdict["assessment"] for verdict in verdicts[100:])
    assert worker.metric("guardline_unavailable_total") == 100
