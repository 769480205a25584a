"""How much one client may do: requests in a minute, and requests at a time. Pure: time is passed in."""

from __future__ import annotations

MINUTE_S = 60.0


class Allowance:
    """Requests in a minute, as a bucket that holds a minute's requests and fills up evenly."""

    def __init__(self, per_minute: int, now: float) -> None:
        self._per_minute = per_minute
        self._left = float(per_minute)
        self._at = now

    def take(self, now: float) -> float:
        """Take one request. Return 0, or if none is left the seconds until one is."""
        per_s = self._per_minute / MINUTE_S
        self._left = min(self._per_minute, self._left + max(0.0, now - self._at) * per_s)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / per_s
        self._left -= 1
        return 0.0
