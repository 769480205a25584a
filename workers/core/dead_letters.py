"""Dead letters: what stands in the place of a record that holds no event, or of an output that no broker takes. Pure.

A dead letter says why, and at which position the record is that it answers. It never lacks both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from msgspec.structs import replace

from workers.core.records import Finished, Headers, Output, Source
from workers.errors import Undecodable

RECORD_OVERHEAD_BYTES = 512
"""What a record batch adds to key, value and headers; generous, because too small a bound would abort."""

OUTPUT_TOO_LARGE = "output_too_large"
TRUNCATED_BYTES = 65_536

MIN_DEAD_LETTER_BYTES = 4_096
"""Room for a dead letter's key, reason and position, when nothing is left of its value."""

MAX_KEY_BYTES = 1_024

HEADER_OVERHEAD_BYTES = 10
"""The lengths of a header's name and value, as variable-length integers of at most five bytes each."""


def too_large(record: Finished, dead_letters: str, max_bytes: int) -> Finished:
    """Make the dead letter that stands for outputs which no broker takes: a beginning, the length and the digest.

    It has at most `max_bytes`. The record's own headers stay, unless they alone fill more than half of that.
    """
    largest = max(record.outputs, key=size_of)
    value = largest.value or b""
    headers = _headers(
        record.source, OUTPUT_TOO_LARGE, f"an output for {largest.topic} is larger than the broker takes"
    )
    headers += [
        ("truncated.length", str(len(value)).encode()),
        ("truncated.sha256", hashlib.sha256(value).hexdigest().encode()),
    ]
    if record.headers and 2 * _header_bytes(record.headers) <= max_bytes - MIN_DEAD_LETTER_BYTES:
        headers = [*record.headers, *headers]
    frame = Output(dead_letters, largest.key[:MAX_KEY_BYTES], None, headers)
    beginning = value[: min(TRUNCATED_BYTES, max_bytes - size_of(frame))]
    memories = tuple(replace(memory, has_verdict=False) for memory in record.memories)
    return Finished(record.source, (replace(frame, value=beginning),), memories)


def size_of(output: Output) -> int:
    """Give an upper bound of what the output takes in a batch of its own, in bytes."""
    size = RECORD_OVERHEAD_BYTES + len(output.key) + len(output.value or b"")
    return size + _header_bytes(output.headers) if output.headers else size


def _header_bytes(headers: Iterable[tuple[str, bytes | None]]) -> int:
    return sum(len(name.encode()) + len(value or b"") + HEADER_OVERHEAD_BYTES for name, value in headers)


def dead_letter(
    topic: str, source: Source, key: bytes, value: bytes | None, own: Headers, error: Undecodable
) -> Finished:
    """Keep what cannot be decoded: raw value, its own headers, and why and where."""
    headers = own + _headers(source, error.reason, error.detail)
    return Finished(source, (Output(topic, key, value, headers),), headers=own)


def _headers(source: Source, reason: str, detail: str) -> Headers:
    """Say in headers why a record is a dead letter, and the position of the record that it answers."""
    topic, partition = source.origin
    return [
        ("reason", reason.encode()),
        ("detail", detail.encode(errors="backslashreplace")[:1024]),
        ("source.topic", topic.encode()),
        ("source.partition", str(partition).encode()),
        ("source.offset", str(source.offset).encode()),
    ]
