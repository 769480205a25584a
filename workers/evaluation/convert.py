"""Converts a public data set from a local file to gold lines."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from workers.annotation.rows import UNREADABLE
from workers.errors import Misconfigured, to_install
from workers.evaluation.public_data import Adapter, Line


class Converted(NamedTuple):
    """The number of rows read, of rows without a usable label, and of lines written."""

    rows: int
    unused: int
    lines: int


def convert(adapter: Adapter, source: Path, output: Path) -> Converted:
    """Write a data set's gold lines.

    Raises:
        Misconfigured: the input cannot be read or is not that data set; the output exists already.
    """
    try:
        out = output.open("xb")
    except FileExistsError:
        raise Misconfigured(f"{output} exists already: remove it, or choose another name") from None
    except OSError as error:
        raise Misconfigured(f"{output}: {error.strerror}") from None
    try:
        with out:
            return _convert(adapter, source, out)
    except BaseException:
        output.unlink()
        raise


def _convert(adapter: Adapter, source: Path, out: IO[bytes]) -> Converted:
    rows = unused = lines = 0
    try:
        for rows, row in enumerate(_rows(source), 1):
            found = _lines_of(adapter, row, f"{source}, row {rows}")
            unused += not found
            lines += len(found)
            out.writelines(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in found)
    except (*UNREADABLE, csv.Error, UnicodeDecodeError) as error:
        raise Misconfigured(f"{source}: cannot be read after row {rows}: {error}") from error
    return Converted(rows, unused, lines)


def _lines_of(adapter: Adapter, row: Mapping[str, Any], where: str) -> list[Line]:
    try:
        return adapter(row)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        columns = ", ".join(map(str, row))
        raise Misconfigured(
            f"{where}: does not have the format of this data set ({error!r}; its columns: {columns})"
        ) from None


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    kind = suffixes[-1].lower() if suffixes else ""
    if kind == ".parquet":
        yield from _parquet(path)
        return
    with path.open("rb") as raw:
        binary = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
        if kind == ".csv":
            csv.field_size_limit(10_000_000)
            yield from csv.DictReader(io.TextIOWrapper(binary, "utf-8-sig", newline=""))
        elif kind in (".jsonl", ".ndjson", ".json"):
            yield from _json(path, binary.read())
        else:
            raise Misconfigured(f"{path}: the name must end in .jsonl, .json, .csv (also with .gz) or .parquet")


def _json(path: Path, text: bytes) -> Iterator[Mapping[str, Any]]:
    """Return the objects of an array, or of each line: both are published as .json. They fit into memory."""
    try:
        if text.lstrip().startswith(b"["):
            yield from orjson.loads(text)
        else:
            yield from (orjson.loads(line) for line in text.splitlines() if line.strip())
    except orjson.JSONDecodeError as error:
        raise Misconfigured(f"{path}: is not JSON: {error}") from None


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise Misconfigured(f"{path}: Parquet needs pyarrow: {to_install('annotate')}") from None
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise Misconfigured(f"{path}: cannot be read as Parquet: {error}") from None
