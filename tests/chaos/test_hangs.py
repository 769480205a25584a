"""An engine that hangs, in threads that cannot be ended: the process ends nevertheless, and loses nothing."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from tests.chaos.faulty_worker import AT_THE_GATE, STUCK
from tests.site import Process, Site, eventually

pytestmark = pytest.mark.timeout(120)


def stuck_worker(site: Site, **changes: str) -> Process:
    """Return a worker that has read events, and whose engine hangs with them for ever."""
    site.create_topics()
    file = Path(site.folder.name) / "stuck"
    worker = site.worker(sys.executable, "-m", "tests.chaos.faulty_worker", "stuck", str(file), **changes)
    eventually(lambda: worker.has_partitions, "partitions")
    file.touch()
    site.events(300)
    eventually(lambda: STUCK in worker.text, "the engine is stuck")
    return worker


def check_with_another(site: Site) -> None:
    assert site.answered() == 0
    site.worker()
    site.check()


def test_an_engine_that_hangs_ends_the_worker_and_loses_nothing(site: Site) -> None:
    worker = stuck_worker(site, GUARDLINE_WORKER__ENGINE_HANGS_AFTER_S="2")
    assert worker.wait(20) == 1, worker.text
    assert worker.end["state"] == "failed"
    assert "worker.engine_hangs_after_s" in worker.end["cause"]
    check_with_another(site)


def test_a_slow_engine_does_not_end_the_worker(site: Site) -> None:
    """Each call takes several times `worker.engine_hangs_after_s`, and with the defaults four of them share the engine.

    When the age of a call was the criterion, the worker was ended again after each start.
    """
    site.create_topics()
    site.events(300, text="message {} " + "of many words that fill the steps of the engine " * 8)
    started = time.monotonic()
    worker = site.worker(
        sys.executable, "-m", "tests.chaos.faulty_worker", "crawl", GUARDLINE_WORKER__ENGINE_HANGS_AFTER_S="1.5"
    )
    site.check()
    assert time.monotonic() - started > 4 * 1.5, "too quick to tell"
    worker.send(signal.SIGTERM)
    assert worker.wait(15) == 0, worker.text


def test_a_frozen_worker_does_not_report_a_hanging_engine(site: Site) -> None:
    """It is frozen with work at the engine, for longer than an engine may take."""
    site.create_topics()
    gate = Path(site.folder.name) / "gate"
    gate.touch()
    worker = site.worker(
        *(sys.executable, "-m", "tests.chaos.faulty_worker", "gate", str(gate)),
        GUARDLINE_WORKER__ENGINE_HANGS_AFTER_S="3",
    )
    site.events(20)
    eventually(lambda: AT_THE_GATE in worker.text, "work is at the engine")
    worker.send(signal.SIGSTOP)
    time.sleep(4)
    worker.send(signal.SIGCONT)
    gate.unlink()
    site.check()
    worker.send(signal.SIGTERM)
    assert worker.wait(15) == 0, worker.text


def test_a_drain_with_a_hanging_engine_ends_after_the_grace_period(site: Site) -> None:
    worker = stuck_worker(site, GUARDLINE_WORKER__GRACE_S="2")
    worker.send(signal.SIGTERM)
    assert worker.wait(15) == 0, worker.text
    assert (worker.end["state"], worker.end["cause"], worker.end["uncommitted"]) == ("stopped", "SIGTERM", 300)
    assert worker.end["drain_s"] >= 2
    check_with_another(site)


def test_a_second_signal_ends_a_worker_with_a_hanging_engine_at_once(site: Site) -> None:
    worker = stuck_worker(site, GUARDLINE_WORKER__GRACE_S="60")
    worker.send(signal.SIGTERM)
    eventually(lambda: "draining" in worker.text, "the drain has begun")
    worker.send(signal.SIGTERM)
    assert worker.wait(5) == 1, worker.text
    assert (worker.end["state"], worker.end["uncommitted"]) == ("failed", 300)
    check_with_another(site)
