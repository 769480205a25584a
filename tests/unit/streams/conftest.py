"""What the tests of streams share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from workers.live import guard
from workers.live.vocabulary import Vocabulary


@pytest.fixture(scope="module", autouse=True)
def vocabularies() -> Iterator[None]:
    """Make each vocabulary once, and not for each owner of a partition. Guards do not change them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(guard, "Vocabulary", cache(Vocabulary))
        yield
