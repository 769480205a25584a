"""The records between the two steps of the worker, and which rows a verdict belongs to. Pure.

The first step reads the verdict topic, whose key is that of the events. It writes each verdict to the partitions of the
rows that count it; the second step owns these rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec
from aiokafka.partitioner import murmur2
from msgspec import Raw, Struct

from workers.aggregates.contents import subjects
from workers.aggregates.rows import Key
from workers.aggregates.verdicts import Read, Seen

MAX_VALUE_BYTES = 400_000
"""How large a record becomes at most, with some room: topics take a megabyte by default."""


class Verdicts(Struct, tag="v", array_like=True, gc=False):
    """Verdicts by the encoded key of their row, in the order of their positions. `topic` as in `Row.topic`."""

    topic: int
    groups: list[tuple[bytes, list[Seen]]]


class Tick(Struct, tag="t", array_like=True, gc=False):
    """Time has passed: thresholds may be cleared, and rows may expire. Milliseconds since 1970-01-01 UTC."""

    now_ms: int


class Forget(Struct, tag="f", array_like=True, gc=False):
    """Delete the row of an author, and count no more verdicts on events up to this time."""

    key: bytes
    until_ms: int = 0


Update: TypeAlias = Verdicts | Tick | Forget

_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Update] = msgspec.msgpack.Decoder(Update)


def encoded(update: Tick | Forget) -> bytes:
    """Return the value of a record."""
    return _encode(update)


def decoded(value: bytes) -> Update:
    """Return the update that these bytes encode.

    Raises:
        msgspec.DecodeError: they encode none.
    """
    return _decoder.decode(value)


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a row: the one that Java's producers choose for its key."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def keys_of(found: Read) -> Iterator[Key]:
    """Give the rows that a verdict belongs to."""
    seen = found.seen
    yield Key("tenant", found.tenant_id, "")
    if seen.author_id is not None:
        yield Key("author", found.tenant_id, seen.author_id)
        if seen.similarity is not None and seen.supersedes is None:
            for subject in subjects(seen.similarity):
                yield Key("content", found.tenant_id, subject)
    if found.thread is not None:
        yield Key("thread", found.tenant_id, found.thread)


class Batch:
    """Verdicts that are sorted by the partitions of their rows."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._groups: dict[int, dict[bytes, list[Raw]]] = {}
        self.verdicts = 0

    def add(self, found: Read) -> None:
        """Add a verdict to each of its rows."""
        raw = Raw(_encode(found.seen))
        self.verdicts += 1
        for key in keys_of(found):
            name = key.encoded()
            groups = self._groups.setdefault(partition_of(name, self._partitions), {})
            groups.setdefault(name, []).append(raw)

    def records(self, topic: int) -> Iterator[tuple[int, bytes]]:
        """Give the partition and the value of each record. No value is much longer than `MAX_VALUE_BYTES`."""
        for partition, groups in self._groups.items():
            part: list[tuple[bytes, list[Raw]]] = []
            size = 0
            for name, raws in groups.items():
                for begin in range(0, len(raws), 1_000):
                    some = raws[begin : begin + 1_000]
                    part.append((name, some))
                    size += len(name) + sum(len(memoryview(raw)) for raw in some)
                    if size >= MAX_VALUE_BYTES:
                        yield partition, _record(topic, part)
                        part, size = [], 0
            if part:
                yield partition, _record(topic, part)


def _record(topic: int, groups: Any) -> bytes:
    return _encode(["v", topic, groups])
