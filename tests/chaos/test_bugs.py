"""A bug in a background task of the event loop: the worker ends, and says why."""

from __future__ import annotations

import sys

import pytest

from tests.site import Site

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("part", ["submit", "remember", "follow", "beat"])
def test_a_bug_in_a_background_task_ends_the_worker(site: Site, part: str) -> None:
    """The event loop would only log it: events would stay pending, policies get old and the heartbeat stop."""
    site.create_topics()
    site.events(100)
    worker = site.worker(sys.executable, "-m", "tests.chaos.faulty_worker", part)
    assert worker.wait() == 1, worker.text
    assert f"injected into {part}" in worker.text.splitlines()[-1]
