"""The reports of vLLM's processes, with other processes in their place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import workers
from tests.site import eventually
from workers.engines.vllm_child import WORKER_VARIABLE
from workers.engines.vllm_reports import Reports, hint
from workers.errors import Misconfigured

FOLLOWS = "from workers.engines.vllm_child import tie_to_worker; tie_to_worker(); print('tied', flush=True); input()"
SILENT = "print('tied', flush=True); input()"


@contextmanager
def process(title: str, code: str) -> Iterator[subprocess.Popen[str]]:
    """Run code in a process with vLLM's kind of title."""
    command = [title, "-c", code]
    made = subprocess.Popen(
        command, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert made.stdout is not None
    assert made.stdout.readline() == "tied\n"
    try:
        yield made
    finally:
        made.kill()
        made.communicate()


@pytest.fixture(autouse=True)
def worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKER_VARIABLE, str(os.getpid()))


@pytest.mark.parametrize("title", ["VLLM::EngineCore", "VLLM::Worker_TP1", "EngineCore_0"])
def test_a_process_of_vllm_that_does_not_report_is_refused(title: str) -> None:
    with Reports() as reports, process("VLLM::EngineCore", FOLLOWS), process(title, SILENT) as silent:
        sentence = rf"vLLM's processes {silent.pid} do not run guardline's plugin"
        with pytest.raises(Misconfigured, match=sentence):
            reports.check()


def test_the_processes_of_another_engine_need_not_report_again() -> None:
    with process("VLLM::EngineCore", SILENT), Reports() as reports:
        reports.check()


def test_only_processes_that_follow_the_worker_have_to_report() -> None:
    with Reports() as reports, process("VLLM::EngineCore", FOLLOWS), process("python", SILENT):
        reports.check()


def test_a_report_after_the_start_is_ignored() -> None:
    with Reports():
        pass
    with process("VLLM::EngineCore", FOLLOWS) as late:
        assert late.poll() is None


def test_the_sentence_names_a_folder_that_shadows_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(Path(workers.__file__).parents[1])])
    monkeypatch.delenv("PYTHONPATH", raising=False)
    assert hint() == ""
    (tmp_path / "workers").mkdir()
    assert str(tmp_path / "workers") in hint()


def test_a_process_ends_with_the_worker_that_it_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    other = subprocess.Popen(["sleep", "60"])
    monkeypatch.setenv(WORKER_VARIABLE, str(other.pid))
    with process("VLLM::EngineCore", FOLLOWS) as child:
        assert child.poll() is None
        other.kill()
        other.wait()
        eventually(lambda: child.poll() is not None, "the child ended", 20)
