"""Counts what is committed. Work that a rebalance or a crash repeats counts once."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from itertools import chain

from workers import telemetry
from workers.core.ledger import Prefix


def count_committed(prefix: Prefix, now: float) -> None:
    """Count the records of a committed prefix. `now` is a `time.time` value.

    A clock that is behind the producer's gives a negative latency, which counts as 0.
    """
    records = list(prefix.records())
    if not records:
        return
    for counter, times in Counter(chain.from_iterable([record.counted for record in records])).items():
        counter.inc(times)
    telemetry.COMMITTED.inc(len(records))
    telemetry.INTAKE_TO_COMMIT_SECONDS.observe_all(
        [max(0.0, now - record.source.received_at_ms / 1000) for record in records]
    )
    telemetry.EVENT_TO_COMMIT_SECONDS.observe_all(
        [
            max(0.0, now - at)
            for record in records
            for created_at in record.created_at
            if (at := _seconds(created_at)) is not None
        ]
    )


def _seconds(created_at: str) -> float | None:
    """Give an RFC 3339 time as seconds since 1970. None for a leap second, which Python cannot represent."""
    try:
        return datetime.fromisoformat(created_at).timestamp()
    except (ValueError, OverflowError):
        return None
