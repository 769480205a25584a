"""CSV and TSV with a header line. An assessment becomes columns with dotted names, such as `assessment.severity`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel

from schemas.assessment import Assessment
from workers.annotation import compression
from workers.annotation.rows import PLAIN, UNREADABLE, Reading, Row
from workers.core.reasons import Reason
from workers.errors import Misconfigured, Undecodable

MAX_CELL_CHARS = 10_000_000
"""Without a limit, a quotation mark that is never closed would read the rest of the file into memory."""

NESTED = ("context",)
"""Cells of these columns hold JSON."""


class Csv:
    """Reads rows; an empty cell is a missing field. `size` is in bytes of the file on the disk."""

    def __init__(self, path: Path, delimiter: str = ",", reading: Reading = PLAIN) -> None:
        self._path = path
        self._text_column = reading.text_column
        self.delimiter = delimiter
        self.size = path.stat().st_size
        self.columns = self._header()

    def _header(self) -> list[str]:
        try:
            columns = next((list(cells) for cells, _ in self._records()), [])
        except (csv.Error, *UNREADABLE) as error:
            raise Misconfigured(f"{self._path}: cannot be read as CSV: {error}") from None
        if not columns or self._text_column not in (None, *columns):
            first = f"its first line says: {', '.join(columns[:20])}" if columns else "it has no first line"
            raise Misconfigured(f"{self._path}: has no column {self._text_column or 'at all'!r} ({first})")
        if len(set(columns)) != len(columns):
            raise Misconfigured(f"{self._path}: a column's name is there twice")
        return columns

    def _records(self) -> Iterator[tuple[list[str], int]]:
        csv.field_size_limit(MAX_CELL_CHARS)
        with self._path.open("rb") as raw:
            binary = compression.reading(raw, self._path.name)
            # Bytes that are not UTF-8 are written back unchanged if the column is not judged.
            with io.TextIOWrapper(binary, "utf-8-sig", errors="surrogateescape", newline="") as text:
                for cells in csv.reader(text, delimiter=self.delimiter):
                    if cells:
                        yield cells, raw.tell()

    def rows(self, *, are_whole: bool) -> Iterator[Row]:
        """See `Source.rows`.

        Raises:
            Misconfigured: the file is broken somewhere, or no CSV from there on.
        """
        records = self._records()
        next(records)
        number = 0
        try:
            for cells, position in records:
                yield self._row(cells, position)
                number += 1
        except (csv.Error, *UNREADABLE) as error:
            raise Misconfigured(f"{self._path}: cannot be read after row {number}: {error}") from None

    def _row(self, cells: list[str], position: int) -> Row:
        if len(cells) != len(self.columns):
            problem = Undecodable(
                Reason.INVALID_FIELD, f"the row has {len(cells)} cells, and the header {len(self.columns)}"
            )
            return Row(None, problem, partial(_readable, cells), None, position)
        fields: dict[str, Any] = {
            name: cell for name, cell in zip(self.columns, cells, strict=True) if cell or name == self._text_column
        }
        try:
            for name in NESTED:
                if name in fields:
                    fields[name] = orjson.loads(fields[name])
        except orjson.JSONDecodeError as error:
            problem = Undecodable(Reason.INVALID_FIELD, f"{name}: the cell is not JSON: {error}")
            return Row(None, problem, partial(_readable, cells), None, position)
        return Row(fields, None, partial(_readable, cells), cells, position)


def _readable(cells: Sequence[str]) -> list[str]:
    return [cell.encode("utf-8", "surrogateescape").decode(errors="backslashreplace") for cell in cells]


class CsvWriter:
    """Writes rows of a CSV file, with the columns of the assessment after their own."""

    def __init__(self, path: Path, name: str, columns: list[str], has_decision: bool, delimiter: str = ",") -> None:
        self._raw = path.open("wb")
        binary = compression.writing(self._raw, name)
        self._text = io.TextIOWrapper(binary, "utf-8", errors="surrogateescape", newline="")
        self._writer = csv.writer(self._text, lineterminator="\n", delimiter=delimiter)
        # Up to Python 3.12 a lone carriage return does not make the writer quote, and the reader ends the row at it.
        self._quoting = csv.writer(self._text, lineterminator="\n", delimiter=delimiter, quoting=csv.QUOTE_ALL)
        added = [f"assessment.{column}" for column in flat_columns(Assessment)]
        self._added = [*added, "decision", "reasons"] if has_decision else added
        # A file that was annotated before has these columns already: their values are replaced.
        self._kept = [index for index, column in enumerate(columns) if column not in self._added]
        self._write([*(columns[index] for index in self._kept), *self._added])

    def write(self, row: Row, found: Mapping[str, Any]) -> None:
        """Write one row."""
        self._write(
            [*(row.native[index] for index in self._kept), *(_cell(found, name.split(".")) for name in self._added)]
        )

    def _write(self, cells: Sequence[str]) -> None:
        writer = self._quoting if any("\r" in cell for cell in cells) else self._writer
        writer.writerow(cells)

    def close(self) -> None:
        """Finish the file."""
        self._text.close()
        self._raw.close()


def flat_columns(model: type[BaseModel]) -> list[str]:
    """Name the columns of a model; a column of a nested model begins with that model's name and a dot."""
    columns: list[str] = []
    for name, field in model.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            columns += [f"{name}.{column}" for column in flat_columns(nested)]
        else:
            columns.append(name)
    return columns


def _cell(found: Any, path: list[str]) -> str:
    for name in path:
        found = found[name]
    if found is None:
        return ""
    return found if isinstance(found, str) else orjson.dumps(found).decode()
