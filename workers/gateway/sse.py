"""Reads and writes server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from workers.gateway.faults import BadUpstream

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
"""A comment, which every client ignores. It keeps proxies from closing a connection on which text is held back."""


class EventReader:
    """Finds the data of the events in bytes that arrive in any portions."""

    def __init__(self, max_bytes: int) -> None:
        """Refuse events of more than `max_bytes` of data."""
        self._max_bytes = max_bytes
        self._line: list[bytes] = []
        self._line_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._after_cr = False
        self._is_first_line = True

    def feed(self, data: bytes) -> Iterator[str]:
        """Give the data of each event that ends in these bytes.

        Raises:
            BadUpstream: the data is not UTF-8, or the event is too large.
        """
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if not data:
            return
        self._after_cr = data.endswith(b"\r")
        *ended, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for part in ended:
            yield from self._ended(b"".join([*self._line, part]))
            self._line, self._line_bytes = [], 0
        if rest:
            self._line.append(rest)
            self._line_bytes += len(rest)
            self._check(self._line_bytes)

    def end(self) -> Iterator[str]:
        """Give the data of the last event if the bytes ended without an empty line after it."""
        if self._line:
            yield from self._ended(b"".join(self._line))
        yield from self._ended(b"")

    def _ended(self, line: bytes) -> Iterator[str]:
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                value = value.removeprefix(b" ")
                self._data.append(value)
                self._data_bytes += len(value) + 1
                self._check(self._data_bytes)
            return
        if self._data:
            data, self._data, self._data_bytes = b"\n".join(self._data), [], 0
            try:
                yield data.decode()
            except UnicodeDecodeError as error:
                raise BadUpstream(f"an event is not UTF-8 at byte {error.start}") from None

    def _check(self, size: int) -> None:
        if size > self._max_bytes:
            raise BadUpstream(f"an event has more than {self._max_bytes} bytes (gateway.upstream.max_event_bytes)")


def event(value: dict[str, Any]) -> bytes:
    """Write an event. Halves of surrogate pairs are written as escapes, as JSON allows."""
    return f"data: {compact(value)}\n\n".encode()


def compact(value: object) -> str:
    """Write JSON in ASCII and without spaces."""
    return json.dumps(value, separators=(",", ":"))
