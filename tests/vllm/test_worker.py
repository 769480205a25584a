"""The whole worker on a real Kafka, with guard-nano on vLLM; and that no process of vLLM outlives it."""

from __future__ import annotations

import json
import os
import signal

import psutil
import pytest

from tests.site import Process, Site, eventually

pytestmark = [pytest.mark.needs("vllm"), pytest.mark.timeout(900)]

START_S = 400
"""A start imports vLLM in three processes, which a busy machine takes minutes for."""

ON_VLLM = {
    "GUARDLINE_GUARD__ENGINE": "vllm",
    "GUARDLINE_GUARD__VLLM": json.dumps({"enforce_eager": True, "dtype": "float32"}),
    # On a CPU vLLM wishes for 128 prompts at a time.
    "GUARDLINE_BATCH__MAX_COUNT": "16",
}


def engine_processes(worker: Process) -> list[psutil.Process]:
    """Give vLLM's processes under a worker, the ones that it made of its own included."""
    try:
        return [child for child in psutil.Process(worker.popen.pid).children(recursive=True) if is_running(child)]
    except psutil.NoSuchProcess:
        return []


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def started(site: Site) -> tuple[Process, list[psutil.Process]]:
    worker = site.worker(**ON_VLLM)
    eventually(lambda: worker.has_partitions or worker.popen.poll() is not None, "partitions assigned", START_S)
    assert worker.popen.poll() is None, worker.text
    children = engine_processes(worker)
    assert any("EngineCore" in child.name() for child in children), children
    return worker, children


def all_end(children: list[psutil.Process]) -> None:
    eventually(lambda: not any(map(is_running, children)), "every process of vLLM ended", 30)


def test_a_worker_judges_and_a_drain_ends_its_engine_with_exit_code_0(site: Site) -> None:
    site.create_topics()
    site.events(300)
    site.events(3, start=300, text="I will kill you and your family, you piece of shit {}")
    worker, children = started(site)
    outcome = site.check(120)
    assert outcome.verdicts == 303
    assessments = [found[0]["assessment"] for found in outcome.by_position.values()]
    assert all(assessment is not None for assessment in assessments)
    assert {assessment["severity"] for assessment in assessments} > {"Safe"}
    group = os.getpgid(worker.popen.pid)
    assert all(os.getpgid(child.pid) != group for child in children if "EngineCore" in child.name()), "Ctrl-C"
    assert '"in_flight": 8' in worker.text, "as many micro-batches as the engine wishes"
    worker.send(signal.SIGTERM)
    assert worker.wait(60) == 0, worker.text
    all_end(children)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV], ids=["killed", "crashed"])
def test_a_worker_that_crashes_ends_its_engine(site: Site, number: signal.Signals) -> None:
    site.create_topics()
    worker, children = started(site)
    worker.send(number)
    assert worker.wait() == -number
    all_end(children)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_a_worker_that_ends_while_its_engine_starts_ends_it(site: Site, number: signal.Signals) -> None:
    site.create_topics()
    worker = site.worker(**ON_VLLM)
    eventually(lambda: len(engine_processes(worker)) > 1, "the engine is starting", START_S)
    children = engine_processes(worker)
    worker.send(number)
    worker.wait()
    # A process of vLLM notices when its imports are through.
    eventually(lambda: not any(map(is_running, children)), "every process of vLLM ended", START_S)


def test_an_idle_engine_that_crashes_ends_the_worker_with_a_sentence(site: Site) -> None:
    site.create_topics()
    worker, children = started(site)
    (core,) = [child for child in children if "EngineCore" in child.name()]
    core.kill()
    assert worker.wait(60) == 1, worker.text
    assert "the vLLM engine process crashed" in worker.text
    all_end(children)
