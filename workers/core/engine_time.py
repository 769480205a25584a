"""Divides the time of an engine among the calls and contents that used it. Pure: time is passed in."""

from __future__ import annotations

from collections.abc import Sequence


class EngineTime:
    """Divides the time among the calls in flight: while two are, each is charged with half of the time.

    Guarantee: all calls together are charged with the time in which at least one was in flight. Never blocks.
    """

    def __init__(self) -> None:
        self._in_flight = 0
        self._charged_s = 0.0
        """What a call would be charged with that has been in flight all the time."""
        self._at = 0.0

    def begin(self, now: float) -> float:
        """Note that a call begins. Give `end` the returned value."""
        self._pass(now)
        self._in_flight += 1
        return self._charged_s

    def end(self, begun: float, now: float) -> float:
        """Note that the call has ended. Return the seconds with which it is charged."""
        self._pass(now)
        self._in_flight -= 1
        return self._charged_s - begun

    def _pass(self, now: float) -> None:
        if self._in_flight:
            self._charged_s += (now - self._at) / self._in_flight
        self._at = now


def shares(total: float, tokens: Sequence[int]) -> list[float]:
    """Divide the time of a call among its contents, by their tokens. A content without tokens has no share."""
    all_tokens = sum(tokens)
    return [total * count / all_tokens for count in tokens] if all_tokens else [0.0] * len(tokens)
