"""Whether the engine is asked and judges nothing. Pure: times are passed in."""

from __future__ import annotations


class Silence:
    """How long the engine has judged nothing although it was asked again and again.

    One failure says nothing: nobody may have asked the engine after it. So the silence lasts from the first failure
    since the last judgement to the newest one.
    """

    def __init__(self) -> None:
        self._first: float | None = None
        self._newest = 0.0

    def judged(self) -> None:
        """Take a judgement."""
        self._first = None

    def failed(self, now: float) -> None:
        """Take a record that was not judged, although the engine was asked."""
        self._newest = now
        if self._first is None:
            self._first = now

    @property
    def lasted_s(self) -> float:
        """How long it has lasted, in seconds."""
        return 0.0 if self._first is None else self._newest - self._first
