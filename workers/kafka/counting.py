"""Counts what is committed. Work that a rebalance or a crash repeats counts once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from itertools import chain

from workers import telemetry
from workers.core.records import Finished

MOST_TIMES = 500
"""Records of one commit whose events' times are parsed, which takes 0.5 µs each: more than all else that is counted."""


def count_committed(records: Sequence[Finished], now: float) -> None:
    """Count the records of a committed transaction. `now` is a `time.time` value."""
    for counter, times in Counter(chain.from_iterable([record.counted for record in records])).items():
        counter.inc(times)
    telemetry.COMMITTED.inc(len(records))
    telemetry.INTAKE_TO_COMMIT_SECONDS.observe_all(
        [now - record.source.received_at_ms / 1000 for record in records],
    )
    sample = records[:: len(records) // MOST_TIMES + 1]
    telemetry.EVENT_TO_COMMIT_SECONDS.observe_all(
        [now - at for record in sample for created_at in record.created_at if (at := _seconds(created_at)) is not None]
    )


def _seconds(created_at: str) -> float | None:
    """Give an RFC 3339 time as seconds since 1970. None for a leap second, which Python cannot represent."""
    try:
        return datetime.fromisoformat(created_at).timestamp()
    except (ValueError, OverflowError):
        return None
