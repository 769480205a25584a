"""What the tests of streams share."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from workers.guard.tokens import Tokens
from workers.live import guard
from workers.live.vocabulary import Vocabulary


@pytest.fixture(scope="module", autouse=True)
def tokenizers() -> Iterator[None]:
    """Read each tokenizer once, and not for each owner of a partition: 0.3 s of CPU. Guards do not change them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(guard, "Tokens", cache(Tokens))
        patched.setattr(guard, "Vocabulary", cache(Vocabulary))
        yield
