"""One real Kafka and one real Valkey for a run; each test has its own topics, group and namespace."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from ctypes import CDLL
from functools import cache
from importlib.util import find_spec
from shutil import which
from typing import Any

import hypothesis
import pytest
from hypothesis import Phase

from tests.site import Site
from tests.stack import Stack, running

# No deadline: the time of an example depends more on the load of the machine than on the code.
hypothesis.settings.register_profile("guardline", deadline=None)
hypothesis.settings.load_profile("guardline")
# To look for what the usual 100 examples miss: pytest --hypothesis-profile thorough FILE
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=2_000)
# For mutants: the same examples each time, and no shrinking after a mutant is detected.
hypothesis.settings.register_profile(
    "mutants", deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)

RUN_BY = {
    "transformers": "make test-vllm",
    "trl": "make test-trl",
    "vllm": "make test-vllm",
    "sglang": "make test-sglang",
    "sklearn": "make test-nano",
}
"""The packages that have their own environments, each with the target that runs its tests."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--registry", action="store_true", help="run the tests that download and start Apicurio")
    parser.addoption("--browser", action="store_true", help="run the tests that need Chromium")
    parser.addoption("--all-characters", action="store_true", help="push every character of Unicode (five minutes)")
    parser.addoption("--docker", action="store_true", help="run the tests that need a Docker engine and the image")


_left_out = pytest.StashKey[dict[str, int]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests that this environment cannot run: `needs(package)` requires a package, `lacks` forbids it.

    `mounts`: the test mounts a file system.
    """
    reasons = {item: reason for item in items if (reason := _why_not(item))}
    if reasons:
        items[:] = [item for item in items if item not in reasons]
        config.hook.pytest_deselected(items=list(reasons))
    config.stash[_left_out] = dict(Counter(reasons.values()))
    if hasattr(config, "workeroutput"):
        config.workeroutput["left_out"] = config.stash[_left_out]


def _why_not(item: pytest.Item) -> str | None:
    for mark in item.iter_markers("needs"):
        if find_spec(mark.args[0]) is None:
            return f"need {mark.args[0]}: {RUN_BY[mark.args[0]]} runs them"
    if item.get_closest_marker("engine") and not item.config.getoption("--docker"):
        return "need a Docker engine: make test-docker runs them"
    if item.get_closest_marker("browser") and not item.config.getoption("--browser"):
        return "need Chromium: make test-page runs them"
    if item.get_closest_marker("registry") and not item.config.getoption("--registry"):
        return "need Apicurio: make test-registry runs them"
    for mark in item.iter_markers("lacks"):
        if find_spec(mark.args[0]) is not None:
            return f"need an environment without {mark.args[0]}: make test runs them"
    if item.get_closest_marker("mounts") is not None and not _can_mount():
        return "mount a file system in a user namespace, which this kernel or container does not permit"
    return None


@cache
def _can_mount() -> bool:
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return which("unshare") is not None and subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the deselected tests of a pytest-xdist process: each process collects the same tests."""
    node.config.stash[_left_out] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for reason, count in sorted(config.stash.get(_left_out, {}).items()):
        terminalreporter.write_line(f"deselected {count} tests that {reason}")


@pytest.fixture(scope="module", autouse=True)
def _give_back_memory() -> Iterator[None]:
    """Return what was freed to the system after each file: threads of models leave it in the C library."""
    yield
    if (trim := getattr(CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The servers that GUARDLINE_TEST_STACK names, started once."""
    with running() as stack:
        yield stack


@pytest.fixture
def site(stack: Stack) -> Iterator[Site]:
    """Topics, a group and a Redis namespace that nothing else uses; its workers end with the test."""
    site = Site(stack.kafka, stack.redis)
    try:
        yield site
    finally:
        site.close()
