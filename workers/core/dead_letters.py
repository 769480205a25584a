"""Dead letters: the outputs for records that hold no event, and for outputs that are too large for the broker. Pure.

The headers of a dead letter give its reason, and the position of the input record. The topic also holds notes. A note
says that the message of an earlier dead letter in the same partition was sent again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from workers.core.reasons import Reason
from workers.core.records import Finished, Headers, Output, Source, TopicPartition, record_key
from workers.errors import OneAtFault

RECORD_OVERHEAD_BYTES = 512
"""An upper bound of what a record batch adds to key, value and headers. Too low a bound would abort transactions."""

OUTPUT_TOO_LARGE = "output_too_large"
REASONS = (*Reason, OUTPUT_TOO_LARGE)
"""Every reason that a dead letter can have."""

TRUNCATED_BYTES = 65_536

MIN_DEAD_LETTER_BYTES = 4_096
"""Enough for the key, the reason and the position of a dead letter without a value."""

MAX_KEY_BYTES = 1_024

REASON_HEADERS = ("reason", "detail", "source.topic", "source.partition", "source.offset")
TRUNCATED_HEADERS = ("truncated.length", "truncated.sha256")

KEYLESS = "source.keyless"
"""The last header of a dead letter whose record had no key: its own key is the number of a partition."""

FIRST_POSITION = "replayed.from"
"""The header of a message that was sent again: `TOPIC/PARTITION/OFFSET` of its first record."""

NOTED_OFFSET = "replayed.offset"
"""The only header of a note: the offset of the dead letter whose message was sent again."""

HEADER_OVERHEAD_BYTES = 10
"""The lengths of a header's name and value, as variable-length integers of at most five bytes each."""


def too_large(record: Finished, dead_letters: str, max_bytes: int) -> Finished:
    """Make the dead letter for outputs that are too large: the beginning of the value, its length and its digest.

    The dead letter has at most `max_bytes`. It keeps the record's own headers unless they fill more than half of that.
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
    if largest.key == record_key(None, record.source.origin.partition):
        # A record's own key may be the same number. To know would cost every event a field, and nobody sends this
        # dead letter again.
        headers.append((KEYLESS, b"true"))
    if record.headers and 2 * _header_bytes(record.headers) <= max_bytes - MIN_DEAD_LETTER_BYTES:
        headers = [*record.headers, *headers]
    frame = Output(dead_letters, largest.key[:MAX_KEY_BYTES], None, headers)
    beginning = value[: min(TRUNCATED_BYTES, max_bytes - size_of(frame))]
    memories = tuple(replace(memory, has_verdict=False) for memory in record.memories)
    return Finished(record.source, (replace(frame, value=beginning),), memories)


def size_of(output: Output) -> int:
    """Give an upper bound of the output's size in a batch of its own, in bytes."""
    size = RECORD_OVERHEAD_BYTES + len(output.key) + len(output.value or b"")
    return size + _header_bytes(output.headers) if output.headers else size


def _header_bytes(headers: Iterable[tuple[str, bytes | None]]) -> int:
    return sum(len(name.encode()) + len(value or b"") + HEADER_OVERHEAD_BYTES for name, value in headers)


def dead_letter(
    topic: str, source: Source, key: bytes | None, value: bytes | None, own: Headers, error: OneAtFault
) -> Finished:
    """Make the dead letter of a record that cannot be decoded: its raw value, its own headers, reason and position."""
    headers = own + _headers(source, error.reason, error.detail)
    if key is None:
        headers.append((KEYLESS, b"true"))
    return Finished(source, (Output(topic, record_key(key, source.origin.partition), value, headers),), headers=own)


def _headers(source: Source, reason: str, detail: str) -> Headers:
    """Give the headers with the reason of a dead letter, and the position of its input record."""
    topic, partition = source.origin
    return [
        ("reason", reason.encode()),
        ("detail", detail.encode(errors="backslashreplace")[:1024]),
        ("source.topic", topic.encode()),
        ("source.partition", str(partition).encode()),
        ("source.offset", str(source.offset).encode()),
    ]


class Letter(Struct, frozen=True):
    """The content of a dead letter's headers. `own` are the headers of its input record."""

    reason: str
    detail: str
    origin: TopicPartition
    offset: int
    own: Headers
    is_truncated: bool
    is_keyless: bool = False

    @property
    def position(self) -> str:
        """The position of its input record."""
        return f"{self.origin.topic}/{self.origin.partition}/{self.offset}"

    @property
    def first_position(self) -> str | None:
        """The position of the first record with this message; None if the message was never sent again."""
        return next((_text(value) for name, value in self.own if name == FIRST_POSITION), None)

    def identity(self, value: bytes | None) -> bytes:
        """Give 16 bytes that are equal for the dead letters of one record, if a worker reads it more than once.

        A topic that was created again has other records at the same positions, so the value counts too.
        """
        end = b"" if value is None else b"\n" + value
        return hashlib.blake2b(self.position.encode() + end, digest_size=16).digest()

    def headers_to_send(self) -> Headers:
        """Give the headers for sending the message again: the record's own headers, and its first position."""
        if self.first_position is not None:
            return self.own
        return [*self.own, (FIRST_POSITION, self.position.encode())]


def read_letter(headers: Headers) -> Letter | None:
    """Read the headers that a worker added after the record's own. None: the record is not a dead letter."""
    names = tuple(name for name, _ in headers)
    is_keyless = names[-1:] == (KEYLESS,)
    end = len(names) - is_keyless
    is_truncated = names[end - 2 : end] == TRUNCATED_HEADERS
    end -= 2 * is_truncated
    begin = end - len(REASON_HEADERS)
    if begin < 0 or names[begin:end] != REASON_HEADERS:
        return None
    reason, detail, topic, partition, offset = (_text(value) for _, value in headers[begin:end])
    if not (_is_number(partition) and _is_number(offset)):
        return None
    origin = TopicPartition(topic, int(partition))
    return Letter(reason, detail, origin, int(offset), headers[:begin], is_truncated, is_keyless)


def note_of(offset: int) -> Headers:
    """Give the headers of the note that the message of the dead letter at this offset was sent again."""
    return [(NOTED_OFFSET, str(offset).encode())]


def noted_offset(headers: Headers) -> int | None:
    """Give the offset of the dead letter that a note names. None: the record is not a note."""
    if len(headers) != 1 or headers[0][0] != NOTED_OFFSET:
        return None
    offset = _text(headers[0][1])
    return int(offset) if _is_number(offset) else None


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "backslashreplace")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20
