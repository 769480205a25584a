"""Generated files are those that the code generates now."""

from __future__ import annotations

import pytest

from infra.generated import ROOT, texts

TEXTS = texts()  # To generate all of them takes a second, and cannot be divided.


@pytest.mark.parametrize("path", sorted(TEXTS))
def test_a_generated_file_is_not_stale(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == TEXTS[path], "stale: run `make generated`"
