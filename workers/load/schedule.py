"""When records are due: pieces of time with a rate that rises, falls or stays. Pure: no clock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """`seconds` in which the rate changes evenly from `from_per_s` to `to_per_s` records a second.

    A piece may last for ever (`math.inf`); its rate then stays at `from_per_s`.
    """

    seconds: float
    from_per_s: float
    to_per_s: float


def steady(per_s: float, *, ramp_s: float, duration_s: float | None) -> list[Piece]:
    """Return a rate that rises from 0 within `ramp_s` and then stays: for `duration_s` in all, or for ever."""
    whole_s = math.inf if duration_s is None else duration_s
    rising_s = min(ramp_s, whole_s)
    reached = per_s * rising_s / ramp_s if ramp_s else per_s
    pieces = (Piece(rising_s, 0, reached), Piece(whole_s - rising_s, per_s, per_s))
    return [piece for piece in pieces if piece.seconds > 0]


def rate_at(pieces: Sequence[Piece], second: float) -> float:
    """Return the rate at a time since the start, in records a second; 0 after the end."""
    for piece in pieces:
        if second < piece.seconds:
            share = second / piece.seconds if math.isfinite(piece.seconds) else 0
            return piece.from_per_s + (piece.to_per_s - piece.from_per_s) * share
        second -= piece.seconds
    return 0.0


def due(pieces: Sequence[Piece]) -> Iterator[float]:
    """Yield the time at which each record is due, in seconds since the start, in order.

    Record n is due when the rates have added up to n: the first one when they have added up to 1.
    """
    began_s, sent, wanted = 0.0, 0.0, 1
    for piece in pieces:
        slope = 0.0 if math.isinf(piece.seconds) else (piece.to_per_s - piece.from_per_s) / piece.seconds
        if math.isinf(piece.seconds) and piece.from_per_s <= 0:
            return
        while True:
            at_s = _reached(wanted - sent, piece.from_per_s, slope)
            # Rounding must not lose the last record of a piece.
            if at_s is None or at_s > piece.seconds * (1 + 1e-12):
                break
            yield began_s + at_s
            wanted += 1
        sent += piece.seconds * (piece.from_per_s + piece.to_per_s) / 2
        began_s += piece.seconds


def _reached(count: float, rate: float, slope: float) -> float | None:
    """Return the seconds until `count` records are due: the smaller root of count = rate·t + slope·t²/2."""
    if slope == 0:
        return count / rate if rate > 0 else None
    inside = rate * rate + 2 * slope * count
    if inside < 0:
        return None
    # In this form a small slope loses no digits.
    below = rate + math.sqrt(inside)
    return 2 * count / below if below > 0 else None
