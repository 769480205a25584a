"""Counts of verdicts by minute and by hour. Pure.

The minutes give every sliding window up to an hour and the tumbling windows of a minute, the hours those of an hour.
Only what was counted is stored, so a quiet author needs a few bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from workers.aggregates.verdicts import CATEGORIES, DECISIONS, SEVERITIES, Seen

Counts: TypeAlias = dict[int, int]
"""How often each of `NAMES` was counted, by its number."""

Buckets: TypeAlias = dict[int, Counts]
"""Counts by the number of the minute, or of the hour, since 1970-01-01 UTC."""

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
MINUTES = 60
"""The minutes that are kept, the present one included."""

HOURS = 24
"""The hours that are kept, the present one included."""

VERDICTS, HARMFUL, CORRECTED = 0, 1, 2
_DECISION, _SEVERITY, _CATEGORY = 8, 12, 16

NAMES: Mapping[int, str] = {
    VERDICTS: "verdicts",
    HARMFUL: "harmful",
    CORRECTED: "corrected",
    **{_DECISION + number: name for number, name in enumerate(DECISIONS)},
    **{_SEVERITY + number: name or "unjudged" for number, name in enumerate(SEVERITIES)},
    **{_CATEGORY + number: name for number, name in enumerate(CATEGORIES)},
}
"""What is counted. `harmful`: judged, by the model or a person, and not allowed. `corrected`: superseding verdicts."""


def is_harmful(seen: Seen) -> bool:
    """Whether a verdict was judged and not allowed. Events that could not be judged say nothing about harm."""
    return seen.decision != 0 and (seen.severity != 0 or bool(seen.corrected_severity))


def changes_of(seen: Seen, *, superseded_is_harmful: bool = False) -> Counts:
    """Return what a verdict adds to the counts. A superseding verdict moves its event from one decision to another.

    `superseded_is_harmful`: the superseded verdict is known as harmful, as a person's decision on an event that was not
    judged may be. Otherwise the model's assessment says whether it was.
    """
    harmful = is_harmful(seen)
    if seen.supersedes is not None:
        moved = {CORRECTED: 1, _DECISION + seen.decision: 1}
        before = seen.superseded_decision
        was_harmful = False
        if before is not None:
            was_harmful = before != 0 and (seen.severity != 0 or superseded_is_harmful)
            moved[_DECISION + before] = moved.get(_DECISION + before, 0) - 1
        moved[HARMFUL] = harmful - was_harmful
        return {code: number for code, number in moved.items() if number}
    counts = {VERDICTS: 1, _DECISION + seen.decision: 1, _SEVERITY + seen.severity: 1}
    if harmful:
        counts[HARMFUL] = 1
    bits, code = seen.categories, _CATEGORY
    while bits:
        if bits & 1:
            counts[code] = 1
        bits >>= 1
        code += 1
    return counts


def add(buckets: Buckets, at: int, changes: Counts) -> None:
    """Add to one bucket. A count never falls below 0: the verdict that is taken back may have expired."""
    bucket = buckets.get(at)
    if bucket is None:
        bucket = buckets[at] = {}
    for code, number in changes.items():
        total = bucket.get(code, 0) + number
        if total > 0:
            bucket[code] = total
        else:
            bucket.pop(code, None)


def expire(buckets: Buckets, first: int) -> None:
    """Delete the buckets before `first`."""
    if buckets and min(buckets) < first:
        for at in [at for at in buckets if at < first]:
            del buckets[at]


def total(buckets: Buckets, first: int, last: int) -> Counts:
    """Return the sums over the buckets from `first` to `last`, both included."""
    sums: Counts = {}
    for at, bucket in buckets.items():
        if first <= at <= last:
            for code, number in bucket.items():
                sums[code] = sums.get(code, 0) + number
    return sums


def sums(buckets: Buckets, first: int, last: int, codes: Iterable[int]) -> list[int]:
    """Return the sums of a few counts over the buckets from `first` to `last`, both included."""
    inside = [bucket for at, bucket in buckets.items() if first <= at <= last]
    return [sum(bucket.get(code, 0) for bucket in inside) for code in codes]
