"""A prompt that crashes the engine's process: it is found, judged alone, and then not judged again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.dying_worker import MARKER
from tests.command import guardline
from tests.lines import read_lines, write_lines
from tests.site import Site

pytestmark = pytest.mark.timeout(180)


class Supervisor:
    """Starts the worker again whenever it dies, as an orchestrator does."""

    def __init__(self, site: Site, **changes: str) -> None:
        self.crashes = 0
        self._environment = {**os.environ, **site.environment, **changes}
        self._log = Path(site.folder.name) / "dying.log"
        self._is_over = False
        self._worker = self._start()
        self._thread = threading.Thread(target=self._supervise)
        self._thread.start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.dying_worker"], env=self._environment, stdout=out, stderr=out
            )

    def _supervise(self) -> None:
        while self._worker.wait() != 0 and not self._is_over:
            self.crashes += 1
            self._worker = self._start()

    @property
    def text(self) -> str:
        return self._log.read_text()

    def drain(self) -> int:
        """End the worker in order, and give its exit code."""
        self._is_over = True
        self._worker.send_signal(signal.SIGTERM)
        self._thread.join(30)
        return self._worker.wait(1)

    def close(self) -> None:
        self._is_over = True
        if self._worker.poll() is None:
            self._worker.kill()
        self._thread.join(30)


@pytest.fixture
def supervisor(site: Site) -> Iterator[Supervisor]:
    site.create_topics()
    policy = site.folder.name + "/policy.yaml"
    Path(policy).write_text("on_unavailable: block\n")
    site.command("policy", "set", "acme", policy)
    supervisor = Supervisor(
        site,
        GUARDLINE_WORKER__ID="mortal",
        GUARDLINE_KAFKA__SESSION_TIMEOUT_S="2",
        GUARDLINE_BATCH__MAX_COUNT="16",
    )
    try:
        yield supervisor
    finally:
        supervisor.close()


def test_a_prompt_that_crashes_the_worker_gets_no_assessment_and_the_others_are_judged(
    site: Site, supervisor: Supervisor
) -> None:
    """Without notes it would loop for ever. If crashes together counted like those alone, it would exclude others.

    Two crashes beside other content and one alone; a busy Redis may miss the note of one before them.
    """
    site.events(60)
    poison = {"event_id": "poison", "tenant_id": "acme", "surface": "chat", "text": f"so: {MARKER}"}
    site.produce([(b"room-1", json.dumps(poison).encode())])
    site.events(60, start=60)
    outcome = site.check(150)
    verdicts = {found[0]["event_id"]: found[0] for found in outcome.by_position.values()}
    assert len(verdicts) == 121
    unjudged = {event_id for event_id, verdict in verdicts.items() if verdict["assessment"] is None}
    assert unjudged == {"poison"}, supervisor.text
    assert verdicts["poison"]["decision"] == "block"
    assert 3 <= supervisor.crashes <= 4, supervisor.text
    assert supervisor.drain() == 0


def test_a_row_that_crashes_annotate_is_found_and_the_others_are_judged(tmp_path: Path) -> None:
    """Without notes it would crash in each run. One crash alone is not enough, because it may be a `kill -9`."""
    rows = [{"n": n, "text": f"good morning {n}"} for n in range(100)]
    rows[40] |= {"text": f"so: {MARKER}"}
    source, output = write_lines(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    partial = tmp_path / "out.jsonl.partial"

    def annotate(code: int) -> str:
        return guardline(
            source,
            output,
            code=code,
            environment={"GUARDLINE_BATCH__MAX_COUNT": "16"},
            program=(sys.executable, "-m", "tests.chaos.dying_annotation", "annotate"),
        ).stderr

    for _ in range(3):
        annotate(code=-signal.SIGKILL)
        assert not output.exists()
    assert partial.read_bytes().count(b'"assessment"') == 40
    assert "100 rows, 59 judged now" in annotate(code=0)
    assert [row["n"] for row in read_lines(output)] == [n for n in range(100) if n != 40]
    (bad,) = read_lines(tmp_path / "out.jsonl.bad.jsonl")
    assert (bad["row"], bad["reason"]) == (41, "engine_died")
    assert not partial.exists()
