"""Files that most unit tests read are read once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from workers.guard.tokens import Tokens
from workers.guard.views import Views


@pytest.fixture(scope="session", autouse=True)
def _read_once() -> Iterator[None]:
    """Let guards share a tokenizer that was read: reading takes half a second, and nothing changes it."""
    read, fold = Tokens.__init__, Views.__init__
    tokens: dict[tuple[Path, int], dict[str, Any]] = {}
    views: dict[str, Any] = {}

    def read_once(self: Tokens, folder: Path) -> None:
        file = folder / "tokenizer.json"
        version = (file, file.stat().st_mtime_ns if file.exists() else 0)
        if version not in tokens:
            read(self, folder)
            tokens[version] = dict(vars(self))
        vars(self).update(tokens[version])

    def fold_once(self: Views) -> None:
        if not views:
            fold(self)
            views.update(vars(self))
        vars(self).update(views)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tokens, "__init__", read_once)
        patch.setattr(Views, "__init__", fold_once)
        yield
