"""Micro-batches that close by count, by tokens or by age. Pure: time is passed in."""

from __future__ import annotations

from collections.abc import Iterable

from workers.core.records import Event

BYTES_PER_TOKEN = 3
"""A cheap estimate that is too high for most scripts. It only sizes batches and never cuts text."""


def estimate_tokens(value_bytes: int) -> int:
    """Estimate the tokens of a text from its UTF-8 length."""
    return value_bytes // BYTES_PER_TOKEN + 1


class Batcher:
    """Collects events until a micro-batch is full or old enough.

    Guarantee: every event leaves in exactly one batch, in the order in which it came. Never blocks.
    """

    def __init__(self, *, max_count: int, max_tokens: int, max_age_s: float) -> None:
        self._max_count = max_count
        self._max_tokens = max_tokens
        self._max_age_s = max_age_s
        self._open: list[Event] = []
        self._tokens = 0
        self._deadline: float | None = None

    def __len__(self) -> int:
        """Count the events of the open batch."""
        return len(self._open)

    def add(self, events: Iterable[Event], now: float) -> list[list[Event]]:
        """Add events; return the batches that became full, oldest first.

        If an event does not fit into the open batch, that batch closes first. An event larger than a whole batch gets
        its own batch.
        """
        closed: list[list[Event]] = []
        for event in events:
            if self._open and self._tokens + event.tokens > self._max_tokens:
                closed.append(self.close())
            if not self._open:
                self._deadline = now + self._max_age_s
            self._open.append(event)
            self._tokens += event.tokens
            if len(self._open) >= self._max_count or self._tokens >= self._max_tokens:
                closed.append(self.close())
        return closed

    def deadline(self) -> float | None:
        """Return the time at which the open batch has to close. None if there is no open batch."""
        return self._deadline

    def close(self) -> list[Event]:
        """Close the open batch, of any size."""
        batch, self._open, self._tokens, self._deadline = self._open, [], 0, None
        return batch
