"""The lifecycle of a worker, in real processes and with real signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command import inheriting
from tests.site import Process, eventually
from tests.unit.process.idle_worker import CLOSE_S, LEFT

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


class Idle(Process):
    """An idle worker, and the files that control it."""

    folder: Path

    def has(self, *files: str) -> None:
        for file in files:
            (self.folder / file).touch()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    def is_in(self, state: str) -> bool:
        text = self.get("/metrics")[1] if self.said("serving /livez, /readyz, /metrics") else ""
        return f'guardline_worker_state{{guardline_worker_state="{state}"}} 1.0' in text

    @property
    def probes(self) -> tuple[int, int]:
        return self.get("/livez")[0], self.get("/readyz")[0]

    def check_end(self, code: int, state: str, cause: str) -> dict[str, Any]:
        """Check how it ends, and that one line says so; return the line."""
        assert self.wait(20) == code, self.text
        (line,) = self.said("worker ended")
        assert (line["state"], line["cause"]) == (state, cause)
        return line


Start = Callable[..., Idle]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Idle] = []

    def run(*files: str, start_within_s: float = 30, ignored: tuple[signal.Signals, ...] = ()) -> Idle:
        log = tmp_path / "log"
        command = [sys.executable, "-m", "tests.unit.process.idle_worker", str(tmp_path), str(start_within_s)]
        with log.open("wb") as out, inheriting(ignored):
            idle = Idle(subprocess.Popen(command, stdout=out, stderr=out), log)
        idle.folder = tmp_path
        idle.has(*files)
        started.append(idle)
        return idle

    yield run
    for idle in started:
        idle.popen.kill()
        idle.popen.wait()


def test_a_worker_starts_runs_drains_and_stops_and_its_probes_say_so(start: Start) -> None:
    worker = start()
    eventually(lambda: worker.is_in("starting"), "it starts")
    assert worker.probes == (200, 503)
    worker.has("there")
    eventually(lambda: worker.is_in("running"), "it runs")
    assert worker.probes == (200, 200)
    worker.send(TERM)
    eventually(lambda: worker.is_in("draining"), "it drains")
    assert worker.probes == (200, 503)
    worker.has("drained")
    line = worker.check_end(0, "stopped", "SIGTERM")
    assert line["drain_s"] > 0
    assert line["uncommitted"] == LEFT
    assert [line["part"] for line in worker.said("closed")] == ["last", "first"]


def test_a_start_waits_for_a_missing_dependency_and_names_it(start: Start) -> None:
    worker = start()
    eventually(lambda: len(worker.said("the start waits (worker.start_within_s)")) == 1, "it says what it waits for")
    assert worker.said("the start waits (worker.start_within_s)")[0]["reason"] == "it is not there"
    worker.has("there")
    eventually(lambda: worker.is_in("running"), "it runs")


@pytest.mark.parametrize("start_within_s", [0, 0.5])
def test_a_start_that_waited_too_long_ends_with_exit_code_1(start: Start, start_within_s: float) -> None:
    worker = start(start_within_s=start_within_s)
    assert worker.wait(20) == 1
    (line,) = worker.said("worker ended")
    assert line["state"] == "failed"
    assert line["cause"].startswith("it is not there (waited for ")
    assert worker.text.splitlines()[-1].startswith("guardline: it is not there (waited for ")
    assert "worker.start_within_s" in line["cause"]


def test_a_start_does_not_wait_for_an_error_that_does_not_pass(start: Start) -> None:
    start("wrong").check_end(2, "failed", "wrong: no wait heals this")


@pytest.mark.parametrize("number", [TERM, INT, HUP])
def test_a_signal_ends_a_waiting_start_at_once(start: Start, number: signal.Signals) -> None:
    worker = start()
    eventually(lambda: worker.said("the start waits (worker.start_within_s)") != [], "it waits")
    worker.send(number)
    worker.check_end(0, "stopped", f"{number.name} while it started")
    assert [line["part"] for line in worker.said("closed")] == ["first"]


def test_a_second_signal_ends_the_process_at_once(start: Start) -> None:
    worker = start("there")
    eventually(lambda: worker.is_in("running"), "it runs")
    worker.send(INT)
    eventually(lambda: worker.is_in("draining"), "it drains")
    worker.send(TERM)
    worker.check_end(1, "failed", "SIGTERM while it was draining: ended at once")
    assert worker.said("closed") == []


def test_a_background_task_that_fails_ends_the_worker_with_its_traceback(start: Start) -> None:
    worker = start("there")
    eventually(lambda: worker.is_in("running"), "it runs")
    worker.has("bug")
    line = worker.check_end(1, "failed", "an unexpected error: ValueError('a bug')")
    assert line["traceback"].splitlines()[-1] == "ValueError: a bug"
    assert line["drain_s"] is None
    assert [line["part"] for line in worker.said("closed")] == ["last", "first"]


def test_a_part_that_does_not_close_delays_the_others_only_for_its_time_limit(start: Start) -> None:
    worker = start("there", "drained", "stuck")
    eventually(lambda: worker.is_in("running"), "it runs")
    worker.send(TERM)
    worker.check_end(0, "stopped", "SIGTERM")
    assert [line["within_s"] for line in worker.said("a part did not close in time")] == [CLOSE_S]
    assert [line["part"] for line in worker.said("closed")] == ["first"]


@pytest.mark.parametrize("number", [INT, HUP])
def test_a_signal_that_was_inherited_as_ignored_stays_ignored(start: Start, number: signal.Signals) -> None:
    """SIGINT for a background job of a shell, SIGHUP under nohup."""
    worker = start("there", "drained", ignored=(number,))
    eventually(lambda: worker.is_in("running"), "it runs")
    worker.send(number)
    worker.send(TERM)
    worker.check_end(0, "stopped", "SIGTERM")
