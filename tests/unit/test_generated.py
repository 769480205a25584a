"""Generated files are those that the code generates now."""

from __future__ import annotations

import pytest

from infra.generated import ROOT, texts


@pytest.mark.parametrize("path", sorted(texts()))
def test_a_generated_file_is_not_stale(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == texts()[path], "stale: run `make generated`"
