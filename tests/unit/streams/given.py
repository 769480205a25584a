"""Records of streams for tests."""

from __future__ import annotations

import json
from typing import Any

from workers.core.records import Record, Source, TopicPartition
from workers.settings import Events
from workers.streams.reading import Item, Reading

ORIGIN = TopicPartition("moderation.streams", 0)


def document(kind: str, seq: int, content: Any = None, /, **changes: Any) -> dict[str, Any]:
    """Give a record's value. `content`: a text, or a list of ids."""
    own = {} if content is None else {"text" if isinstance(content, str) else "token_ids": content}
    return {"kind": kind, "stream_id": "s1", "tenant_id": "acme", "seq": seq, **own, **changes}


def read(value: dict[str, Any] | bytes, offset: int = 0, at_s: float | None = 0, epoch: int = 1) -> Item:
    """Read a value at this offset. `at_s`: its Kafka timestamp."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    timestamp_ms = None if at_s is None else int(at_s * 1000)
    (item,) = Reading(Events())(Record(raw, b"s1"), Source(ORIGIN, epoch, offset, timestamp_ms))
    return item


def item(
    kind: str, seq: int, content: Any = None, /, *, offset: int = 0, at_s: float | None = 0, **changes: Any
) -> Item:
    """Give an item as it is read from a record."""
    return read(document(kind, seq, content, **changes), offset, at_s)
