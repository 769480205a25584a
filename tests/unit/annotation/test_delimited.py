"""CSV: what is read is written again as it was."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from workers.annotation.delimited import Csv, CsvWriter

ASSESSMENT: dict[str, Any] = {
    "severity": "Safe",
    "categories": [],
    "refusal": None,
    "scores": {"safe": 1, "controversial": 0, "unsafe": 0},
    "category_scores": {},
    "model": {"name": "m", "revision": "r", "template_hash": "t"},
    "windows": 1,
    "truncated_windows": 0,
    "truncated_context_tokens": 0,
    "tokens": 1,
    "views": [],
}
# What UTF-8 can hold, and bytes that are none of it as the reader hands them on.
AWKWARD = "\r\n\",;' \t\x00\ufeff\x85\u2028\udc80\udcff"
CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text(f"a{AWKWARD}", max_size=6)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=5), CELLS.filter(lambda name: name != "text"))
def test_cells_are_written_back_unchanged(rows: list[tuple[str, str]], column: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "in.csv", Path(folder) / "out.csv"
        lines = [",".join('"' + cell.replace('"', '""') + '"' for cell in cells) for cells in [("text", column), *rows]]
        source.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
        read = Csv(source)
        assert read.columns == ["text", column]
        writer = CsvWriter(output, output.name, read.columns, has_decision=False)
        for row in read.rows(are_whole=True):
            writer.write(row, {"assessment": ASSESSMENT})
        writer.close()
        written = Csv(output)
        assert written.columns[:2] == ["text", column]
        assert [tuple(row.native[:2]) for row in written.rows(are_whole=True)] == rows
