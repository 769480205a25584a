"""What a record means for its stream, by the order and the times of records. Pure: no I/O, no clock.

The same records give the same meanings, whoever reads them: the next owner of a partition repeats them from the input
topic. So nothing here may depend on when a record is read. docs/streams.md#outcomes has the same as a table.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Literal, NamedTuple

from workers.core.records import Source
from workers.streams.reading import Item

REMEMBERED = 256
"""The newest records of a stream that a repeat is compared with: 40 bytes each. Producers retry the last few."""


class Act(StrEnum):
    """What to do with a record."""

    ANSWER = "answer"
    """Nothing is judged."""
    BEGIN = "begin"
    """It begins a stream."""
    JUDGE = "judge"
    FINISH = "finish"
    """The answer ends: judge what is left of it."""
    GIVE_UP = "give_up"
    """The stream cannot be judged from here on: the policy's `on_unavailable` decides."""


class Meaning(NamedTuple):
    """What a record means. `outcome` is that of its verdict, unless judging it leads to another one.

    `ends`: whether the stream ends with it, so that a later record belongs to no stream.
    """

    act: Act
    outcome: str
    ends: bool = False


class Limits(NamedTuple):
    """How long a stream may be without a record, and how long it may live: in milliseconds of record timestamps."""

    idle_ms: float
    age_ms: float

    @property
    def forgotten_ms(self) -> float:
        """After this time nobody ends a stream any more, so it is forgotten."""
        return self.age_ms + self.idle_ms


class Stream:
    """The order and the times of one stream.

    Attributes:
        source: the record that began it.
        state: `open`, `cut` or `unavailable`, as in `schemas.stream.StreamSession`. The caller sets the latter two.
        next_seq: the `seq` that comes next.

    The time of its newest record is not known before `begin` or `see`.
    """

    __slots__ = ("_digests", "_newest_ms", "next_seq", "source", "state")

    def __init__(self, source: Source, state: Literal["open", "cut", "unavailable"] = "open") -> None:
        self.source = source
        self.state = state
        self.next_seq = 0
        self._newest_ms: int | None = None
        self._digests: deque[int] = deque(maxlen=REMEMBERED)

    def begin(self, item: Item) -> None:
        """Take the record that began the stream. Its `seq` is the first one."""
        self.see(item)
        self._remember(item)

    def see(self, item: Item) -> None:
        """Take the time of a record of the stream, besides that of `begin` and `meaning`."""
        if item.source.timestamp_ms is not None:
            self._newest_ms = max(self._newest_ms or 0, item.source.timestamp_ms)

    def is_forgotten(self, item: Item, limits: Limits) -> bool:
        """Say whether this record comes so late that a new owner would not know the stream any more."""
        age_ms = self._age_ms(item)
        return age_ms is not None and age_ms > limits.forgotten_ms

    def has_expired(self, item: Item, limits: Limits) -> bool:
        """Say whether the stream was over before this record. A record without a timestamp is never late."""
        now_ms, age_ms = item.source.timestamp_ms, self._age_ms(item)
        if now_ms is None or age_ms is None:
            return False
        # The next owner does not know the newest record of a stream that was cut: it does not read its records again.
        newest_ms = None if self.state == "cut" else self._newest_ms
        return age_ms > limits.age_ms or (newest_ms is not None and now_ms - newest_ms > limits.idle_ms)

    def meaning(self, item: Item, limits: Limits) -> Meaning:
        """Say what the next record of an open stream means, and count it."""
        if self.has_expired(item, limits):
            return Meaning(Act.BEGIN, "opened") if item.kind == "open" else Meaning(Act.ANSWER, "expired", ends=True)
        ends = item.kind == "close"
        if self.state == "cut":
            return Meaning(Act.ANSWER, "closed" if ends else "after_cut", ends)
        self.see(item)
        if item.seq < self.next_seq and self._is_repeat(item):
            return Meaning(Act.ANSWER, "repeated")
        is_next = item.seq == self.next_seq and item.kind != "open"
        if item.seq >= self.next_seq:
            if item.seq > self.next_seq:
                self._digests.clear()  # The places of older ones are counted from the newest.
            self._remember(item)
        if not is_next:
            return Meaning(Act.GIVE_UP, "out_of_order", ends)
        if item.is_too_long:
            return Meaning(Act.GIVE_UP, "too_long")
        if ends:
            return Meaning(Act.FINISH, "closed", ends)
        return Meaning(Act.JUDGE, "judged")

    def _age_ms(self, item: Item) -> int | None:
        now_ms, begin_ms = item.source.timestamp_ms, self.source.timestamp_ms
        return None if now_ms is None or begin_ms is None else now_ms - begin_ms

    def _remember(self, item: Item) -> None:
        self._digests.append(item.digest)
        self.next_seq = item.seq + 1

    def _is_repeat(self, item: Item) -> bool:
        """Say whether a record of this `seq` had the same content. Other content was never judged."""
        behind = self.next_seq - item.seq
        return behind <= len(self._digests) and self._digests[-behind] == item.digest


def without_stream(item: Item) -> Meaning:
    """Say what a record means whose stream is not known."""
    return Meaning(Act.BEGIN, "opened") if item.kind == "open" else Meaning(Act.ANSWER, "unknown_stream")
