"""Reads times in the formats that platforms use. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from schemas.event import MAX_TIMESTAMP_CHARS, RFC_3339

_RFC_3339 = re.compile(RFC_3339)
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?")
_DATE = re.compile(r"[12][0-9]{3}[01][0-9][0-3][0-9]")
"""ISO 8601 without separators: as epoch seconds it would be a day in 1970."""
_NAMED_ZONE = re.compile(r"\[[^\[\]]*\]$")
"""Java's ZonedDateTime adds the zone's name after the offset: `[Europe/Paris]`."""
_SPACED_OFFSET = re.compile(r" ?([+-][0-9]{2}:?[0-9]{2})?( (UTC|GMT|Z))?$", re.IGNORECASE)
"""Ruby and Go write a space before the offset, and Go a name after it."""

MILLISECONDS_FROM = 10**11
"""From here on, a number counts milliseconds: in seconds it would be in the year 5138, in milliseconds in 1973."""


def read_time(given: object) -> str | None:
    """Give an RFC 3339 time; None if the value is not a time.

    An RFC 3339 string stays as it is. Other times are rewritten in UTC: epoch seconds, milliseconds, microseconds and
    nanoseconds (numbers or strings), ISO 8601 (without an offset it is UTC), and RFC 2822.
    """
    if isinstance(given, bool):
        return None
    if isinstance(given, (int, float)):
        return _written(_of_epoch(given))
    if not isinstance(given, str):
        return None
    if len(given) <= MAX_TIMESTAMP_CHARS and _RFC_3339.fullmatch(given):
        return given
    text = given.strip()
    if _NUMBER.fullmatch(text) and not _DATE.fullmatch(text):
        return _written(_of_epoch(float(text) if "." in text else int(text)))
    return _written(_of_text(text[: 2 * MAX_TIMESTAMP_CHARS]))


def _of_epoch(number: float) -> datetime | None:
    try:
        for _ in range(3):
            if abs(number) < MILLISECONDS_FROM:
                break
            number /= 1000
        return datetime.fromtimestamp(number, UTC)
    except (ValueError, OverflowError, OSError):  # NaN, infinity, a year past 9999.
        return None


def _of_text(text: str) -> datetime | None:
    iso = _NAMED_ZONE.sub("", text)
    iso = _SPACED_OFFSET.sub(lambda found: found[1] or ("Z" if found[3] else ""), iso)
    for parse, written in ((datetime.fromisoformat, iso), (parsedate_to_datetime, text)):
        try:
            time = parse(written)
            return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
        except (ValueError, OverflowError, TypeError, IndexError):
            continue
    return None


def _written(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat().replace("+00:00", "Z")
