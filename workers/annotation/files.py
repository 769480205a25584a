"""Chooses reader and writer by a file's name. Parquet is imported only if it is read or written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from workers.annotation.compression import SUFFIXES, without
from workers.annotation.delimited import Csv, CsvWriter
from workers.annotation.json_array import JsonArray, JsonArrayWriter
from workers.annotation.json_lines import JsonLines, JsonLinesWriter
from workers.annotation.rows import PLAIN, Reading, Row
from workers.errors import Misconfigured, to_install

KINDS = {
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".json": "a JSON array",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".parquet": "Parquet",
}
DELIMITERS = {"CSV": ",", "TSV": "\t"}


class Source(Protocol):
    """A file of rows that can be read any number of times. `size` is the `Row.position` of the last row."""

    size: int

    def rows(self, *, are_whole: bool) -> Iterator[Row]:
        """Give the rows in order. Only whole rows can be written; the others may lack columns that are not judged."""
        ...


class Writer(Protocol):
    """A file that is being written."""

    def write(self, row: Row, found: Mapping[str, Any]) -> None:
        """Write one row with what was found."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


def suffix_of(path: Path) -> str:
    """Give the suffix that names the format of a file, in lower case: of a compressed one, the suffix before `.gz`."""
    return without(path).suffix.lower()


def kind_of(path: Path) -> str:
    """Name the format of a file by its suffix.

    Raises:
        Misconfigured: the suffix names no format.
    """
    kind = KINDS.get(suffix_of(path))
    if kind is None or (kind == "Parquet" and without(path) != path):
        raise Misconfigured(
            f"{path}: the name must end in one of {', '.join(KINDS)} "
            f"(all but the last also with {' or '.join(SUFFIXES)})"
        )
    return kind


def open_source(path: Path, reading: Reading = PLAIN) -> Source:
    """Open a file of rows.

    Raises:
        Misconfigured: the file does not exist, cannot be read, or lacks the column of the text.
    """
    kind = kind_of(path)
    if not path.is_file():
        raise Misconfigured(f"no such file: {path}")
    if kind == "JSON lines":
        return JsonLines(path)
    if kind == "a JSON array":
        return JsonArray(path)
    if kind in DELIMITERS:
        return Csv(path, DELIMITERS[kind], reading)
    try:
        from workers.annotation.parquet import Parquet
    except ModuleNotFoundError:
        raise Misconfigured(f"{path}: Parquet needs pyarrow: {to_install('annotate')}") from None
    return Parquet(path, reading)


def open_writer(path: Path, name: str, source: Source, *, has_decision: bool) -> Writer:
    """Create the file for the rows of a source with their findings; `name` is the name that it gets at the end."""
    if isinstance(source, JsonLines):
        return JsonLinesWriter(path, name)
    if isinstance(source, JsonArray):
        return JsonArrayWriter(path, name)
    if isinstance(source, Csv):
        return CsvWriter(path, name, source.columns, has_decision, source.delimiter)
    from workers.annotation.parquet import Parquet, ParquetWriter

    assert isinstance(source, Parquet)
    return ParquetWriter(path, source.schema, has_decision)
