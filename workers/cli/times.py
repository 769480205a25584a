"""Reads the times that flags give."""

from __future__ import annotations

from datetime import datetime

from workers.core.times import read_time
from workers.errors import Misconfigured


def seconds_of(flag: str, given: str | None) -> float | None:
    """Return a flag's time in seconds since 1970; None if the flag is not given.

    Raises:
        Misconfigured: it is not a time.
    """
    if given is None:
        return None
    time = read_time(given)
    if time is None:
        raise Misconfigured(
            f"{flag}: {given!r} is not a time: give an RFC 3339 time with a zone, as in 2026-01-31T12:00:00Z"
        )
    return datetime.fromisoformat(time).timestamp()
