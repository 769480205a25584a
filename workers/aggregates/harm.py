"""Whether a tenant's harm rate is above its own normal, and whether a thread goes bad. Pure.

docs/aggregates.md has the formula in words.
"""

from __future__ import annotations

from math import sqrt

from workers.aggregates.rows import Key, Normal, Row
from workers.aggregates.signals import Crossing, level
from workers.aggregates.windows import HARMFUL, MINUTE_MS, VERDICTS, sums
from workers.settings.aggregate_sections import HarmRate, Thread

_CODES = (HARMFUL, VERDICTS)


def deviations(harmful: int, verdicts: int, normal: Normal) -> float:
    """Return how many standard deviations `harmful` of `verdicts` are above normal.

    The number of harmful verdicts is binomial if nothing has changed. What is normal is itself an estimate, from
    `normal.verdicts`, which makes the variance larger by `1 + verdicts / normal.verdicts`. Half a harmful verdict in
    one is added to what is normal, so that a tenant without any harm has a rate above 0.
    """
    if verdicts <= 0:
        return 0.0
    rate = (normal.harmful + 0.5) / (normal.verdicts + 1)
    expected = verdicts * rate
    variance = expected * (1 - rate) * (1 + verdicts / (normal.verdicts + 1))
    return (harmful - expected) / sqrt(variance) if variance > 0 else 0.0


def follow(row: Row, settings: HarmRate, now_ms: int) -> Normal:
    """Add to what is normal the minutes that have left the window, and let the older ones fade; return it."""
    last = now_ms // MINUTE_MS - settings.window_minutes
    normal = row.normal
    if normal is None:
        begin = min(row.minutes, default=last + 1)
        normal = Normal(0.0, 0.0, min(begin, last + 1) - 1)
    if last > normal.minute:
        fading = 0.5 ** (1 / (60 * settings.half_life_hours))
        harmful, verdicts = normal.harmful, normal.verdicts
        steps = last - normal.minute
        kept = fading**steps
        harmful, verdicts = harmful * kept, verdicts * kept
        for minute, counts in row.minutes.items():
            if normal.minute < minute <= last:
                kept = fading ** (last - minute)
                harmful += kept * counts.get(HARMFUL, 0)
                verdicts += kept * counts.get(VERDICTS, 0)
        normal = Normal(harmful, verdicts, last)
    row.normal = normal
    return normal


def tenant_signals(key: Key, row: Row, settings: HarmRate, now_ms: int) -> list[Crossing]:
    """Compare the last minutes of a tenant with its normal; return the signal, if the threshold is crossed.

    `now_ms` is the time of the newest verdict, or the time of a clock that no verdict is behind.
    """
    normal = follow(row, settings, now_ms)
    minute = now_ms // MINUTE_MS
    harmful, verdicts = sums(row.minutes, minute - settings.window_minutes + 1, minute, _CODES)
    return level(
        key,
        row,
        value=round(deviations(harmful, verdicts, normal), 2),
        raise_at=settings.raise_at,
        clear_below=settings.clear_below,
        may_raise=harmful >= settings.min_harmful and normal.verdicts >= settings.min_verdicts,
        evidence=row.evidence,
        at_ms=now_ms,
    )


def thread_signals(key: Key, row: Row, settings: Thread, now_ms: int) -> list[Crossing]:
    """Look at the last minutes of a thread; return the signal, if the threshold is crossed."""
    minute = now_ms // MINUTE_MS
    harmful, verdicts = sums(row.minutes, minute - settings.window_minutes + 1, minute, _CODES)
    return level(
        key,
        row,
        value=round(harmful / verdicts, 3) if verdicts > 0 else 0.0,
        raise_at=settings.rate,
        clear_below=settings.clear_below,
        may_raise=harmful >= settings.min_harmful,
        evidence=row.evidence,
        at_ms=now_ms,
    )
