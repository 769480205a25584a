"""A plugin of pytest for mutmut: a test reaches what the set-up of its fixtures reaches.

mutmut runs the tests that reach a mutant, and finds out which by running all of them once. Of the tests that share a
fixture of a module or a session, it sees only the first one reach what the set-up calls.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from typing import Any

import pytest
from mutmut.state import state

_by_set_up: dict[pytest.FixtureDef[Any], set[str]] = defaultdict(set)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    """Note which functions the set-up reaches."""
    before = set(state()._stats)
    state()._stats.clear()
    try:
        return (yield)
    finally:
        _by_set_up[fixturedef] |= state()._stats
        state()._stats.update(before)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Add what the set-ups of its fixtures reached, whichever test they were run for."""
    for definitions in getattr(item, "_fixtureinfo").name2fixturedefs.values():  # noqa: B009 - pytest's own
        for definition in definitions:
            state()._stats.update(_by_set_up[definition])
