"""Reads the times that flags give."""

from __future__ import annotations

from datetime import datetime

from workers.core.times import read_time
from workers.errors import Misconfigured

A_DATE = "A date alone is its midnight in UTC."
"""The end of the help of each flag that takes a time."""


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
            f"{flag}: {given!r} is not a time: give an RFC 3339 time with a zone, as in 2026-01-31T12:00:00Z, "
            "or a date, as in 2026-01-31, which is its midnight in UTC"
        )
    return datetime.fromisoformat(time).timestamp()


def window_of(since: str | None, until: str | None) -> tuple[float | None, float | None]:
    """Return the times of --since and --until in seconds since 1970; None for a flag that is not given.

    Raises:
        Misconfigured: one is not a time, or nothing lies between the two.
    """
    begin_s, end_s = seconds_of("--since", since), seconds_of("--until", until)
    if begin_s is not None and end_s is not None and begin_s >= end_s:
        raise Misconfigured(f"--until: {until!r} has to be after --since, {since!r}")
    return begin_s, end_s
