"""Writes times for a person: how long ago, and the time itself in UTC. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

_UNITS = ((86_400_000, "day"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))


class Moment(NamedTuple):
    """A time. `words` is relative to now; `clock` and `iso` are in UTC."""

    words: str
    clock: str
    iso: str


def moment(at_ms: int, now_ms: int) -> Moment:
    """Write a time, in milliseconds since 1970-01-01 UTC."""
    try:
        time = datetime.fromtimestamp(at_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return Moment("at an unknown time", "?", "?")
    length = _length(abs(now_ms - at_ms))
    words = "now" if length is None else f"{length} ago" if at_ms < now_ms else f"in {length}"
    return Moment(words, f"{time:%H:%M:%S} UTC", f"{time:%Y-%m-%dT%H:%M:%SZ}")


def _length(length_ms: int) -> str | None:
    for unit_ms, name in _UNITS:
        if length_ms >= unit_ms:
            number = length_ms // unit_ms
            return f"{number} {name}{'s' if name == 'day' and number > 1 else ''}"
    return None
