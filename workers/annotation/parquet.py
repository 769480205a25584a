"""Parquet, batch by batch: the rows' own columns stay in Arrow. Needs pyarrow (the extra 'annotate')."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel

from schemas.assessment import Assessment
from workers.annotation.rows import PLAIN, Reading, Row
from workers.errors import Misconfigured

BATCH_ROWS = 1_024
"""Rows in memory at a time; fewer if rows are long."""
BATCH_BYTES = 16 * 1024 * 1024
"""About how many bytes of them: a thousand rows of 150 kB, which are copied several times, took 1.4 GB."""
READ_BYTES = 1024 * 1024
"""How much of a column is read ahead. Without this limit, or with pyarrow's `pre_buffer`, a whole row group is in
memory, and many files have only one."""
GROUP_BYTES = 64 * 1024 * 1024
"""About how much a row group of the output holds before it is written."""


class Parquet:
    """Reads rows. `size` is in rows."""

    def __init__(self, path: Path, reading: Reading = PLAIN) -> None:
        self._path = path
        self._reading = reading
        try:
            with pq.ParquetFile(path) as file:
                self.size: int = file.metadata.num_rows
                groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
                size = sum(group.total_byte_size for group in groups)
                self._batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES * self.size // max(1, size)))
                self.schema = file.schema_arrow
        except (pa.ArrowException, OSError) as error:
            raise Misconfigured(f"{path}: cannot be read as Parquet: {error}") from None
        if reading.text_column not in (None, *self.schema.names):
            columns = ", ".join(self.schema.names[:20])
            raise Misconfigured(f"{path}: has no column {reading.text_column!r} (its columns: {columns})")

    def rows(self, *, are_whole: bool) -> Iterator[Row]:
        """See `Source.rows`.

        Raises:
            Misconfigured: the file is broken somewhere.
        """
        wanted = self._reading.columns
        judged = [name for name in self.schema.names if wanted is None or name in wanted]
        position = 0
        try:
            with pq.ParquetFile(self._path, pre_buffer=False, buffer_size=READ_BYTES) as file:
                for batch in file.iter_batches(self._batch_rows, columns=None if are_whole else judged):
                    for index, fields in enumerate(batch.select(judged).to_pylist()):
                        position += 1
                        yield Row(fields, None, partial(_plain, batch, index), (batch, index), position)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"{self._path}: cannot be read after row {position}: {error}") from None


def _plain(batch: Any, index: int) -> dict[str, Any]:
    return {name: _cell(batch.column(name)[index]) for name in batch.schema.names}


def _cell(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except ValueError:  # A datetime cannot hold nanoseconds.
        return str(scalar.cast(pa.string()))


class ParquetWriter:
    """Writes rows of a Parquet file with the column `assessment`, and with a policy `decision` and `reasons`."""

    def __init__(self, path: Path, schema: pa.Schema, has_decision: bool) -> None:
        added = [pa.field("assessment", arrow_type(Assessment))]
        if has_decision:
            added += [pa.field("decision", pa.string()), pa.field("reasons", pa.list_(pa.string()))]
        self._added = added
        names = {field.name for field in added}
        # A file that was annotated before has these columns already: their values are replaced.
        self._kept = [name for name in schema.names if name not in names]
        whole = pa.schema([*(schema.field(name) for name in self._kept), *added], metadata=schema.metadata)
        self._writer = pq.ParquetWriter(path, whole, compression="zstd")
        self._schema = whole
        self._batch: pa.RecordBatch | None = None
        self._indices: list[int] = []
        self._found: list[Mapping[str, Any]] = []
        self._group: list[pa.RecordBatch] = []

    def write(self, row: Row, found: Mapping[str, Any]) -> None:
        """Write one row."""
        batch, index = row.native
        if batch is not self._batch:
            self._end_batch()
            self._batch = batch
        self._indices.append(index)
        self._found.append(found)

    def close(self) -> None:
        """Finish the file."""
        self._end_batch()
        self._end_group()
        self._writer.close()

    def _end_batch(self) -> None:
        if self._batch is not None and self._indices:
            rows = self._batch.take(pa.array(self._indices))
            columns = [rows.column(name) for name in self._kept]
            columns += [pa.array([found[field.name] for found in self._found], field.type) for field in self._added]
            self._group.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
            if sum(batch.nbytes for batch in self._group) >= GROUP_BYTES:
                self._end_group()
        self._indices, self._found = [], []

    def _end_group(self) -> None:
        if self._group:
            self._writer.write_table(pa.Table.from_batches(self._group))
        self._group = []


def arrow_type(annotation: Any) -> pa.DataType:
    """Give the Arrow type of a field of a contract. So the column has the same type in every file.

    Raises:
        TypeError: the contract has a type for which there is no column type yet.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        (only,) = (argument for argument in arguments if argument is not type(None))
        return arrow_type(only)
    if origin is list:
        return pa.list_(arrow_type(arguments[0]))
    if origin is dict:
        return pa.map_(arrow_type(arguments[0]), arrow_type(arguments[1]))
    if arguments:  # Annotated: a column's type does not include the limits.
        return arrow_type(arguments[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct([(name, arrow_type(field.annotation)) for name, field in annotation.model_fields.items()])
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return pa.string()
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    raise TypeError(f"no Arrow type for {annotation!r}")


_PLAIN = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
