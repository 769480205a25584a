"""Puts the records of several partitions in the order of their timestamps, while they are read.

Guarantee: it gives every record once, and never changes the order within a partition. Never blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from heapq import heappop, heappush

from confluent_kafka import Consumer, Message, TopicPartition

Origin = tuple[str, int]

RECORD_BYTES = 500
"""What a record costs beside its value."""

FULL_BYTES = 16_000_000
"""With this much waiting, a partition is paused until another one has caught up."""


class Merge:
    """Holds records back until no record before them can arrive. Pauses the partitions of which it holds too many."""

    def __init__(self, consumer: Consumer, unread: set[Origin], topics: Sequence[str]) -> None:
        """`unread` are the partitions whose end was not reached; the caller keeps it up to date. Of records with the
        same time, those of an earlier one of `topics` come first.
        """
        self._ranks = {topic: rank for rank, topic in enumerate(topics)}
        self._consumer = consumer
        self._unread = unread
        self._waiting: dict[Origin, deque[Message]] = {}
        self._first: list[tuple[int, int, Origin]] = []
        """A heap with the time of the first record of each partition that has records waiting."""
        self._bytes: dict[Origin, int] = {}
        self._paused: set[Origin] = set()

    def add(self, message: Message) -> None:
        """Take a record."""
        origin = (str(message.topic()), int(message.partition() or 0))
        waiting = self._waiting.setdefault(origin, deque())
        if not waiting:
            self._push(message, origin)
        waiting.append(message)
        self._bytes[origin] = self._bytes.get(origin, 0) + len(message) + RECORD_BYTES
        if self._bytes[origin] > FULL_BYTES and origin not in self._paused:
            self._paused.add(origin)
            self._consumer.pause([TopicPartition(*origin)])

    def ready(self) -> Iterator[Message]:
        """Give the records that no record of another partition can precede."""
        silent = {origin for origin in self._unread if not self._waiting.get(origin)}
        while self._first and not silent:
            *_, origin = heappop(self._first)
            waiting = self._waiting[origin]
            message = waiting.popleft()
            self._bytes[origin] -= len(message) + RECORD_BYTES
            if waiting:
                self._push(waiting[0], origin)
            elif origin in self._unread:
                silent.add(origin)
            yield message
        self._resume({origin for origin in self._paused if 2 * self._bytes[origin] < FULL_BYTES})

    def _push(self, message: Message, origin: Origin) -> None:
        heappush(self._first, (message.timestamp()[1], self._ranks[origin[0]], origin))

    def _resume(self, origins: Collection[Origin]) -> None:
        if origins:
            self._consumer.resume([TopicPartition(*origin) for origin in origins])
            self._paused.difference_update(origins)
