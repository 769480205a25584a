"""Files that most unit tests read are read once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workers.guard.tokens import Tokens
from workers.guard.views import Views


@pytest.fixture(scope="session", autouse=True)
def _read_once() -> Iterator[None]:
    """Let guards share a tokenizer that was read, also from a copy of its file.

    Reading takes half a second, and 25 MB that nobody gives back as long as the test run; nothing changes it.
    """
    read, fold = Tokens.__init__, Views.__init__
    tokens: dict[bytes, dict[str, Any]] = {}
    views: dict[str, Any] = {}

    def read_once(self: Tokens, folder: Path) -> None:
        file = folder / "tokenizer.json"
        digest = hashlib.sha256(file.read_bytes()).digest() if file.is_file() else b""
        if digest not in tokens:
            read(self, folder)
            tokens[digest] = dict(vars(self))
        vars(self).update(tokens[digest])

    def fold_once(self: Views) -> None:
        if not views:
            fold(self)
            views.update(vars(self))
        vars(self).update(views)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokens, "__init__", read_once)
        patch.setattr(Views, "__init__", fold_once)
        yield
