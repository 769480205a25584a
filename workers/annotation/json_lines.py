"""JSON lines: one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import orjson

from workers.annotation import compression
from workers.annotation.rows import UNREADABLE, Row
from workers.core.json_text import parse
from workers.core.reasons import Reason
from workers.errors import Misconfigured, Undecodable

MAX_LINE_BYTES = 16 * 1024 * 1024
"""Without a limit, a file without line breaks would be read into memory as one line."""


class JsonLines:
    """Reads rows and skips empty lines. `size` is in bytes of the file on the disk."""

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
            raise Misconfigured(f"{self._path}: cannot be read after row {number}: {error}") from None

    def _rows(self) -> Iterator[Row]:
        with self._path.open("rb") as raw:
            lines = compression.reading(raw, self._path.name)
            while line := lines.readline(MAX_LINE_BYTES):
                is_whole = line.endswith(b"\n") or len(line) < MAX_LINE_BYTES
                if not is_whole:
                    line = b""
                    while (rest := lines.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                elif not line.strip():
                    continue
                yield row_of(line, raw.tell())


def row_of(line: bytes, position: int) -> Row:
    """Give the row in a text of JSON; an empty text stands for one that was too long."""
    if not line:
        problem = Undecodable(Reason.TOO_LARGE, f"the line has more than {MAX_LINE_BYTES} bytes")
        return Row(None, problem, lambda: None, None, position)

    def raw() -> str:
        return line.rstrip(b"\r\n").decode(errors="backslashreplace")

    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            fields = parse(line)
        except Undecodable as error:
            return Row(None, error, raw, None, position)
    if not isinstance(fields, dict):
        return Row(None, Undecodable(Reason.WRONG_TYPE, "the row is JSON, but not an object"), raw, None, position)
    return Row(fields, None, raw, fields, position)


def written(row: Row, found: Mapping[str, Any]) -> bytes:
    """Give a row as JSON, with its finding added to it. A number that is not JSON (NaN) becomes null."""
    document = {**row.native, **found}
    try:
        return orjson.dumps(document)
    except TypeError:
        # It holds half of a surrogate pair, or an integer of more than 64 bits: both are written back unchanged.
        return json.dumps(document).encode()


class JsonLinesWriter:
    """Writes each row as an object, with its finding added to it."""

    def __init__(self, path: Path, name: str) -> None:
        self._raw: IO[bytes] = path.open("wb")
        self._file = compression.writing(self._raw, name)

    def write(self, row: Row, found: Mapping[str, Any]) -> None:
        """Write one row."""
        self._file.write(written(row, found) + b"\n")

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
        self._raw.close()
