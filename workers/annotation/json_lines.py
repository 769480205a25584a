"""JSON lines: one object a line, plain or gzip."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import orjson

from workers.annotation.rows import UNREADABLE, Row
from workers.core.decode import Reason
from workers.errors import Misconfigured, Undecodable

MAX_LINE_BYTES = 16 * 1024 * 1024
"""A file without line breaks must not be read into memory as one line."""


class JsonLines:
    """Reads rows, skipping empty lines. `size` is in bytes of the file as it lies on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = path.stat().st_size

    def rows(self, *, are_whole: bool) -> Iterator[Row]:
        """See `Source.rows`.

        Raises:
            Misconfigured: the file is broken somewhere.
        """
        number = 0
        try:
            for row in self._rows():
                yield row
                number += 1
        except UNREADABLE as error:
            raise Misconfigured(f"{self._path}: cannot be read behind row {number}: {error}") from None

    def _rows(self) -> Iterator[Row]:
        with self._path.open("rb") as raw:
            lines = gzip.GzipFile(fileobj=raw) if self._path.suffix == ".gz" else raw
            while line := lines.readline(MAX_LINE_BYTES):
                is_whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
                if not is_whole:
                    line = b""
                    while (rest := lines.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                elif not line.strip():
                    continue
                yield _row(line, raw.tell())


def _row(line: bytes, position: int) -> Row:
    if not line:
        problem = Undecodable(Reason.TOO_LARGE, f"the line has more than {MAX_LINE_BYTES} bytes")
        return Row(None, problem, lambda: None, None, position)

    def raw() -> str:
        return line.rstrip(b"\r\n").decode(errors="backslashreplace")

    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return Row(None, Undecodable(Reason.NOT_JSON, str(error)), raw, None, position)
    if not isinstance(fields, dict):
        return Row(None, Undecodable(Reason.WRONG_TYPE, "the line is JSON, but not an object"), raw, None, position)
    return Row(fields, None, raw, fields, position)


class JsonLinesWriter:
    """Writes each row as an object with what was found added to it."""

    def __init__(self, path: Path, name: str) -> None:
        self._raw: IO[bytes] = path.open("wb")
        self._file: IO[bytes] = gzip.GzipFile(name, "wb", fileobj=self._raw) if name.endswith(".gz") else self._raw  # type: ignore[assignment]  # a file in all that is used here

    def write(self, row: Row, found: Mapping[str, Any]) -> None:
        """Write one row."""
        self._file.write(orjson.dumps({**row.native, **found}, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Finish the file."""
        if self._file is not self._raw:
            self._file.close()
        self._raw.close()
