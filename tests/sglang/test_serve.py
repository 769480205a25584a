"""No process of the server outlives a run of tests, however that ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

from tests.site import eventually

pytestmark = [pytest.mark.needs("sglang"), pytest.mark.timeout(600)]


def family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_spawned(process: psutil.Process) -> bool:
    try:
        return any("multiprocessing.spawn" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "terminated"])
def test_a_killed_test_run_also_ends_its_server(number: signal.Signals) -> None:
    run = subprocess.Popen([sys.executable, "-c", "from tests.sglang.serve import served; served(); input()"])
    process = psutil.Process(run.pid)
    eventually(lambda: any(map(is_spawned, family(process))), "the server has made its processes", 300)
    children = family(process)
    run.send_signal(number)
    run.wait()
    eventually(lambda: not any(map(is_running, children)), "every process of the server ended", 60)
