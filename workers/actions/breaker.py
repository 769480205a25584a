"""Decides whether an endpoint is called at all. Pure: the caller gives the time, a `time.monotonic()` value."""

from __future__ import annotations

import random
from enum import StrEnum

OPENS_AFTER = 5
"""Failed calls in a row, without an accepted one between them. More would only use up attempts: they fail too."""

LONGEST_S = 30.0
"""The longest time without a call. An endpoint that works again is noticed after at most this time."""


class State(StrEnum):
    """Whether calls are made."""

    CLOSED = "closed"
    HALF_OPEN = "half_open"
    OPEN = "open"
    GONE = "gone"


class Breaker:
    """`closed -> open -> half_open -> closed | open`, and `gone`, which lasts.

    An open breaker permits no call. When its time is over, it permits one: the probe, whose result closes it or opens
    it again, for up to twice as long.
    """

    def __init__(self, first_s: float, max_s: float) -> None:
        self._first_s = first_s
        self._max_s = min(max_s, LONGEST_S)
        self._failures = 0
        self._openings = 0
        self._until = 0.0
        self.state = State.CLOSED

    def permits(self, now: float) -> bool:
        """Say whether a call may be made now. A call that is made is a probe unless the breaker is closed."""
        if self.state in (State.CLOSED, State.OPEN):
            return now >= self._until
        return False

    @property
    def until(self) -> float:
        """When the next call may be made, if no result comes before."""
        return self._until if self.state in (State.CLOSED, State.OPEN) else float("inf")

    def called(self) -> None:
        """Note that a permitted call is made."""
        if self.state is State.OPEN:
            self.state = State.HALF_OPEN

    def accepted(self) -> bool:
        """Note an accepted call. Return whether the breaker was open until now."""
        was_open = self.state in (State.OPEN, State.HALF_OPEN)
        if self.state is not State.GONE:
            self.state, self._failures, self._openings = State.CLOSED, 0, 0
            self._until = 0.0 if was_open else self._until
        return was_open

    def failed(self, now: float) -> bool:
        """Note a failed call. Return whether the breaker opens because of it."""
        self._failures += 1
        if self.state is State.HALF_OPEN or (self.state is State.CLOSED and self._failures >= OPENS_AFTER):
            opens = self.state is State.CLOSED
            longest_s = min(self._first_s * 2.0 ** min(self._openings, 30), self._max_s)
            # Several workers have a breaker each: their probes should not come together.
            self._until = max(self._until, now + longest_s * random.uniform(0.5, 1.0))  # noqa: S311
            self._openings += 1
            self.state = State.OPEN
            return opens
        return False

    def undecided(self) -> None:
        """Note a call that says nothing about the endpoint, such as one whose content was refused."""
        if self.state is State.HALF_OPEN:
            self.state = State.OPEN  # Its time is over, so the next call is another probe.

    def pause(self, now: float, wait_s: float) -> None:
        """Permit no call for a time that the endpoint asked for."""
        self._until = max(self._until, now + wait_s)

    def end(self) -> bool:
        """Permit no call any more. Return whether one was permitted until now."""
        was_gone = self.state is State.GONE
        self.state = State.GONE
        return not was_gone
