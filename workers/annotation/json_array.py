"""A JSON array of objects, read and written element by element, however long it is."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from workers.annotation import compression
from workers.annotation.json_lines import MAX_LINE_BYTES, row_of, written
from workers.annotation.rows import UNREADABLE, Row
from workers.errors import Misconfigured

CHUNK_BYTES = 1024 * 1024

_DECODER = json.JSONDecoder(strict=False)


class JsonArray:
    """Reads rows. `size` is in bytes of the file on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.size = path.stat().st_size

    def rows(self, *, are_whole: bool) -> Iterator[Row]:
        """See `Source.rows`.

        Raises:
            Misconfigured: the file is broken somewhere, or is not an array.
        """
        number = 0
        try:
            with self._path.open("rb") as raw:
                for element in _Elements(compression.reading(raw, self._path.name)):
                    yield row_of(element.encode(), raw.tell())
                    number += 1
        except (ValueError, RecursionError, *UNREADABLE) as error:
            raise Misconfigured(f"{self._path}: cannot be read after row {number}: {error}") from None


class _Elements:
    """The texts of an array's elements. Holds two chunks, or one element and a chunk, in memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._text = ""
        self._at = 0
        self._is_at_end = False

    def __iter__(self) -> Iterator[str]:
        if self._next_character() != "[":
            raise ValueError("a .json file holds one array; objects in lines of their own are .jsonl")
        self._at += 1
        is_first = True
        while (character := self._next_character()) != "]":
            if not is_first:
                if character != ",":
                    raise ValueError(f"a comma is missing, or the end of the array (character {self._at})")
                self._at += 1
                self._next_character()
            is_first = False
            end = self._end_of_element()
            yield self._text[self._at : end]
            self._at = end

    def _next_character(self) -> str:
        """Skip spaces; give the next character, "" at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at].isspace():
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read(CHUNK_BYTES):
                return ""

    def _end_of_element(self) -> int:
        size = CHUNK_BYTES
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if len(self._text) - self._at > MAX_LINE_BYTES:
                    raise ValueError(f"an element is not JSON, or has more than {MAX_LINE_BYTES} bytes") from None
                if not self._read(size):
                    raise
            else:
                # A number may continue in the next chunk.
                if end < len(self._text) or not self._read(size):
                    return int(end)
            size *= 2  # Otherwise each chunk of a long element would cause a parse from its beginning.

    def _read(self, size: int) -> bool:
        if self._is_at_end:
            return False
        chunk = self._file.read(size)
        self._is_at_end = not chunk
        self._text = self._text[self._at :] + self._decode(chunk, self._is_at_end)
        self._at = 0
        return not self._is_at_end


class JsonArrayWriter:
    """Writes each row as an object, with its finding added to it, in a line of the array."""

    def __init__(self, path: Path, name: str) -> None:
        self._raw: IO[bytes] = path.open("wb")
        self._file = compression.writing(self._raw, name)
        self._before = b"[\n"

    def write(self, row: Row, found: Mapping[str, Any]) -> None:
        """Write one row."""
        self._file.write(self._before + written(row, found))
        self._before = b",\n"

    def close(self) -> None:
        """Finish the file."""
        self._file.write(b"[]\n" if self._before == b"[\n" else b"\n]\n")
        self._file.close()
        self._raw.close()
