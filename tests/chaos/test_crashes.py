"""Workers killed, frozen, joined and revoked under load: every position has exactly one visible output, in order."""

from __future__ import annotations

import random
import re
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.site import Process, Site, eventually

pytestmark = pytest.mark.timeout(180)

FAULTY = (sys.executable, "-m", "tests.chaos.faulty_worker")
IN_HAND = "good morning everyone"
"""In the log of a worker with the fault `gate` or `lag`: it has events, not only the texts of its self-check."""
BOTH_PROTOCOLS = pytest.mark.parametrize("protocol", ["classic", "consumer"])


@BOTH_PROTOCOLS
def test_a_worker_killed_at_random_moments_loses_and_duplicates_nothing(site: Site, protocol: str) -> None:
    """The worker is killed at any moment after its first commit: the next owner has to begin where it ended. The next
    test kills at the worst moment."""
    site.use(protocol)
    site.create_topics()
    survivor = site.worker()
    eventually(lambda: survivor.has_partitions, "the survivor has partitions")
    # Limited to 320 events a second, so that it is killed long before it has answered all of them.
    victim = site.worker(*FAULTY, "lag", GUARDLINE_BATCH__MAX_COUNT="16", GUARDLINE_BATCH__IN_FLIGHT="2")
    eventually(lambda: victim.has_partitions, "the victim has partitions")
    for topic in (0, 1):
        site.events(1_000, start=topic * 1_000, topic=topic)
    eventually(lambda: victim.metric("guardline_records_committed_total") > 0, "the victim has committed something")
    time.sleep(random.uniform(0.0, 0.6))
    victim.send(signal.SIGKILL)
    victim.wait()
    # No other worker gets its partitions before its session has expired.
    answered = {str(found[0]["event_id"]) for found in site.outcome().by_position.values()}
    in_hand = {f"e{number}" for number in re.findall(rf"{IN_HAND} (\d+)", victim.text)}
    assert in_hand - answered, "the victim held nothing when it was killed"
    site.check()


def test_a_worker_killed_just_before_its_commit_loses_and_duplicates_nothing(site: Site) -> None:
    """Fails when offsets are committed outside the transaction, or when its outputs are seen without it."""
    site.environment["GUARDLINE_KAFKA__TRANSACTION_TIMEOUT_S"] = "2"
    site.create_topics()
    victim = site.worker(*FAULTY, "die")
    eventually(lambda: victim.has_partitions, "the victim has partitions")
    site.events(100)
    assert victim.wait() == -signal.SIGKILL
    site.worker()
    site.check()


def at_the_gate(site: Site, gate: Path, count: int) -> Process:
    """Return a worker that has all sent events at the engine until `gate` is removed."""
    site.create_topics()
    # Room at the engine for every micro-batch: what waits for its turn would not be seen to have been taken in.
    worker = site.worker(*FAULTY, "gate", str(gate), GUARDLINE_BATCH__IN_FLIGHT="200")
    eventually(lambda: worker.has_partitions, "partitions")
    gate.touch()
    site.events(count)
    eventually(
        lambda: all(f'"good morning everyone {number}"' in worker.text for number in range(count)),
        "all are at the engine",
    )
    return worker


@BOTH_PROTOCOLS
def test_a_worker_frozen_past_its_session_commits_nothing_when_it_resumes(site: Site, protocol: str) -> None:
    """It resumes with results of partitions, and does not know yet that it has lost them."""
    site.use(protocol)
    gate = Path(site.folder.name) / "gate"
    frozen = at_the_gate(site, gate, 200)
    frozen.send(signal.SIGSTOP)
    assert site.answered() == 0
    other = site.worker()
    eventually(lambda: other.has_partitions, "the other took over")
    eventually(lambda: site.answered() == len(site.sent), "the other answers")
    gate.unlink()
    frozen.send(signal.SIGCONT)
    eventually(lambda: "partitions lost" in frozen.text, "it learns of its loss")
    eventually(lambda: frozen.text.count("partitions assigned") > 1, "it has joined again")
    site.events(200, start=200)
    site.check()
    assert frozen.popen.poll() is None, frozen.text


@BOTH_PROTOCOLS
def test_workers_that_join_and_leave_under_load_lose_and_duplicate_nothing(site: Site, protocol: str) -> None:
    """A revoke comes while events of the partition, and events that share its content, are in flight."""
    site.use(protocol)
    site.create_topics()
    gate = Path(site.folder.name) / "gate"
    first = site.worker(*FAULTY, "gate", str(gate))
    eventually(lambda: first.has_partitions, "partitions")
    gate.touch()
    for topic in (0, 1):
        site.events(700, start=topic * 700, topic=topic)
        # The same text on all partitions: single flight across partitions, of which some go away.
        site.events(700, start=1400 + topic * 700, keys=40, text="the same text for all", topic=topic)
    eventually(lambda: IN_HAND in first.text, "events are at the engine")
    second = site.worker()
    eventually(lambda: "partitions revoked" in first.text, "a revoke while they are")
    assert len(site.sent) > site.answered()
    gate.unlink()
    eventually(lambda: second.has_partitions, "the second has partitions")
    eventually(lambda: first.metric("guardline_stale_completions_total") > 0, "what was at the engine came too late")
    site.events(1000, start=3000)
    second.send(signal.SIGTERM)
    assert second.wait() == 0, second.text
    site.events(200, start=4000)
    site.check()
    first.send(signal.SIGTERM)
    assert first.wait() == 0, first.text


def test_a_second_worker_with_the_same_id_fences_the_first_with_a_sentence(site: Site) -> None:
    """The group tells the first within a heartbeat, or the brokers when it commits: whichever it hears first."""
    site.create_topics()
    first = site.worker(GUARDLINE_WORKER__ID="same")
    eventually(lambda: first.has_partitions, "partitions")
    second = site.worker(GUARDLINE_WORKER__ID="same")
    site.events(200)
    eventually(lambda: "worker started" in second.text, "the second runs")
    # Whichever partitions the first keeps, it has something to commit: only then does it learn that it was fenced.
    site.events(200, start=200)
    site.events(200, start=400, topic=1)
    assert first.wait(60) == 1
    assert "fenced" in first.text
    assert "same worker.id" in first.text
    assert second.popen.poll() is None
    site.check()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_drain_finishes_the_records_in_flight_and_exits_0(site: Site, number: signal.Signals) -> None:
    gate = Path(site.folder.name) / "gate"
    worker = at_the_gate(site, gate, 200)
    assert [worker.get(path)[0] for path in ("/livez", "/readyz")] == [200, 200]
    assert worker.metric("guardline_uncommitted_records") == 200
    worker.send(number)
    eventually(lambda: "draining" in worker.text, "the drain has begun")
    assert [worker.get(path)[0] for path in ("/livez", "/readyz")] == [200, 503]
    assert site.answered() == 0
    gate.unlink()
    assert worker.wait() == 0, worker.text
    assert (worker.end["state"], worker.end["cause"], worker.end["uncommitted"]) == ("stopped", number.name, 0)
    site.check(deadline_s=5)
