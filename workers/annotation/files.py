"""Chooses reader and writer by a file's name. Parquet is imported only where it is read or written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from workers.annotation.delimited import Csv, CsvWriter
from workers.annotation.json_lines import JsonLines, JsonLinesWriter
from workers.annotation.rows import Row
from workers.errors import Misconfigured

KINDS = {".jsonl": "JSON lines", ".ndjson": "JSON lines", ".csv": "CSV", ".parquet": "Parquet"}


class Source(Protocol):
    """A file of rows that can be read as often as needed. `size` is what `Row.position` ends at."""

    size: int

    def rows(self, *, are_whole: bool) -> Iterator[Row]:
        """Give the rows in order. Only whole ones can be written; the others may lack what is not judged."""
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
    """Give the suffix that names the format of a file, in lower case: of a compressed one, the suffix below `.gz`."""
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


def kind_of(path: Path) -> str:
    """Name the format of a file by its suffix.

    Raises:
        Misconfigured: the suffix says nothing.
    """
    kind = KINDS.get(suffix_of(path))
    if kind is None or (kind == "Parquet" and path.suffix == ".gz"):
        raise Misconfigured(f"{path}: the name has to end in one of {', '.join(KINDS)} (the first three also with .gz)")
    return kind


def open_source(path: Path) -> Source:
    """Open a file of rows.

    Raises:
        Misconfigured: it is not there, cannot be read, or has no column `text`.
    """
    kind = kind_of(path)
    if not path.is_file():
        raise Misconfigured(f"no such file: {path}")
    if kind == "JSON lines":
        return JsonLines(path)
    if kind == "CSV":
        return Csv(path)
    try:
        from workers.annotation.parquet import Parquet
    except ModuleNotFoundError:
        raise Misconfigured(f"{path}: Parquet needs pyarrow: pip install '.[annotate]' in the clone") from None
    return Parquet(path)


def open_writer(path: Path, name: str, source: Source, *, has_decision: bool) -> Writer:
    """Make the file for the rows of a source with what was found; `name` says what it will be called in the end."""
    if isinstance(source, JsonLines):
        return JsonLinesWriter(path, name)
    if isinstance(source, Csv):
        return CsvWriter(path, name, source.columns, has_decision)
    from workers.annotation.parquet import Parquet, ParquetWriter

    assert isinstance(source, Parquet)
    return ParquetWriter(path, source.schema, has_decision)
