"""One real Kafka and one real Valkey for a run; each test has topics, a group and a namespace of its own."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest

from infra.devstack.stack import Stack, running
from tests.site import Site

# How long an example takes says more of what else the machine does than of the code.
hypothesis.settings.register_profile("guardline", deadline=None)
hypothesis.settings.load_profile("guardline")


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The embedded stack, started once."""
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
