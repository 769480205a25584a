"""The two checkpoints that the guard's tests run with: guard-nano, and Qwen's real vocabulary at Qwen3Guard's shape."""

from __future__ import annotations

import pytest

from tests.checkpoints.checkpoint import Checkpoint, checkpoint
from tests.checkpoints.qwen import shared_qwen
from workers.guard.load import checkpoint_folder


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return checkpoint(shared_qwen(tmp_path_factory))


@pytest.fixture(scope="session")
def nano() -> Checkpoint:
    return checkpoint(checkpoint_folder("guard-nano"))


@pytest.fixture(scope="session", params=["nano", "qwen"])
def either(request: pytest.FixtureRequest) -> Checkpoint:
    """Each of the two."""
    found: Checkpoint = request.getfixturevalue(request.param)
    return found
