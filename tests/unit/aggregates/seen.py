"""Verdicts as the rows see them."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson

from workers.aggregates.verdicts import Read, Seen, read
from workers.aggregates.windows import HOUR_MS, MINUTE_MS, NAMES

__all__ = ["HOUR_MS", "MINUTE_MS", "NOW_MS", "named", "read_of", "seen_of"]

NOW_MS = 1_795_000_000_000


def read_of(verdict: dict[str, Any], *, partition: int = 0, offset: int = 0, received_ms: int = NOW_MS) -> Read:
    found = read(
        orjson.dumps(verdict), partition=partition, offset=offset, timestamp_ms=received_ms, thread="conversation_id"
    )
    assert isinstance(found, Read), found
    return found._replace(seen=msgspec.structs.replace(found.seen, received_ms=received_ms, sent_ms=received_ms))


def seen_of(verdict: dict[str, Any], *, partition: int = 0, offset: int = 0, received_ms: int = NOW_MS) -> Seen:
    return read_of(verdict, partition=partition, offset=offset, received_ms=received_ms).seen


def named(counts: dict[int, int]) -> dict[str, int]:
    return {NAMES[code]: number for code, number in counts.items()}
