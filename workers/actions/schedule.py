"""Which deliveries may be sent now: those of one key one after the other, those of different keys together. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush

from workers.actions.delivery import Delivery


class Schedule:
    """A queue for each key. Only the first delivery of a queue is ever sent.

    Guarantee: a delivery is taken only after `remove` of all deliveries with its key that were added before it. The
    number of deliveries is bounded by the caller. Never blocks; times are `time.monotonic()` values.
    """

    def __init__(self) -> None:
        self._queues: dict[bytes, deque[Delivery]] = {}
        self._ready: deque[bytes] = deque()
        self._later: list[tuple[float, int, bytes]] = []
        self._number = 0
        self.waiting = 0
        """The deliveries that were added and not removed, those that were taken included."""

    def add(self, delivery: Delivery) -> None:
        """Put a delivery behind the others of its key."""
        queue = self._queues.get(delivery.key)
        self.waiting += 1
        if queue is None:
            self._queues[delivery.key] = deque((delivery,))
            self._ready.append(delivery.key)
        else:
            queue.append(delivery)

    def take(self, most: int, now: float) -> list[Delivery]:
        """Take up to `most` deliveries of different keys that may be sent now. One that `is_single` is taken alone."""
        while self._later and self._later[0][0] <= now:
            self._ready.append(heappop(self._later)[2])
        taken: list[Delivery] = []
        while self._ready and len(taken) < most:
            first = self._queues[self._ready[0]][0]
            if first.is_single and taken:
                break
            self._ready.popleft()
            taken.append(first)
            if first.is_single:
                break
        return taken

    def take_early(self) -> list[Delivery]:
        """Take the delivery that may be sent first, although its time has not come; none if no delivery waits."""
        if not self._later:
            return []
        return [self._queues[heappop(self._later)[2]][0]]

    def again(self, delivery: Delivery, at: float) -> None:
        """Put a delivery that was taken back to the front of its key, to be taken from the time `at` on."""
        self._number += 1
        heappush(self._later, (at, self._number, delivery.key))

    def remove(self, delivery: Delivery) -> None:
        """End a delivery that was taken: the next one of its key may be taken."""
        queue = self._queues[delivery.key]
        ended = queue.popleft()
        assert ended is delivery, "only the first delivery of a key is taken"
        self.waiting -= 1
        if queue:
            self._ready.append(delivery.key)
        else:
            del self._queues[delivery.key]

    def release(self) -> None:
        """Let all deliveries that wait for their time be taken now, in the order of their times."""
        while self._later:
            self._ready.append(heappop(self._later)[2])

    @property
    def next_at(self) -> float | None:
        """When the next delivery may be taken that may not be taken now; None if there is none."""
        return self._later[0][0] if self._later else None

    @property
    def has_ready(self) -> bool:
        """Whether a delivery may be taken without waiting for a time."""
        return bool(self._ready)

    def first(self) -> Iterator[Delivery]:
        """Give the first delivery of each key: each is the oldest of its key."""
        return (queue[0] for queue in self._queues.values())
