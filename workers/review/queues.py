"""The waiting items in the order of their turns. Pure.

A queue holds the items of one tenant, one language and one desk that exclude the same people and that the same people
skipped. So the first item of a queue suits everybody who may read the queue, and `first` never searches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from workers.review.item import Item

UNKNOWN_LANGUAGE = "und"
"""The language of items without one, as in BCP 47. Every reviewer gets them."""


class Queue(NamedTuple):
    """Which items a queue holds. The people in `excluded` do not get them, those in `skipped_by` get them last."""

    tenant_id: str
    language: str
    is_senior: bool
    excluded: frozenset[str]
    skipped_by: frozenset[str]


class Reader(NamedTuple):
    """Who asks. Empty `tenants` or `languages` mean all of them."""

    name: str
    is_senior: bool
    tenants: frozenset[str] = frozenset()
    languages: frozenset[str] = frozenset()

    def may_read(self, queue: Queue) -> bool:
        """Whether the items of the queue are for this person."""
        return (
            (self.is_senior or not queue.is_senior)
            and self.may_see(queue.tenant_id, queue.language)
            and self.name not in queue.excluded
        )

    def may_see(self, tenant_id: str, language: str) -> bool:
        """Whether the person works for the tenant and reads the language."""
        return (not self.tenants or tenant_id in self.tenants) and (
            not self.languages or language in self.languages or language == UNKNOWN_LANGUAGE
        )


def queue_of(item: Item) -> Queue:
    """Give the queue of a waiting item."""
    language, is_senior = language_of(item.language), item.status == "escalated"
    return Queue(item.tenant_id, language, is_senior, item.excluded(), frozenset(item.skipped_by))


def language_of(tag: str | None) -> str:
    """Give the language of a BCP 47 tag, without its script and region: `en-GB` is read by everybody who reads `en`."""
    return tag.partition("-")[0].lower() if tag else UNKNOWN_LANGUAGE


class Queues:
    """All waiting items that nobody has on lease.

    `add`, `remove` and `first` take O(log n) for each queue that the reader may read. An item that was removed stays in
    its heap until it is first there, or until half of the heap was removed.
    """

    def __init__(self) -> None:
        self._heaps: dict[Queue, list[tuple[int, str]]] = {}
        self._places: dict[str, tuple[Queue, int]] = {}
        """The queue and the turn of each item. An entry of a heap that is not here was removed."""
        self._counts: dict[Queue, int] = {}

    def __len__(self) -> int:
        """Count the items."""
        return len(self._places)

    def __contains__(self, verdict_id: str) -> bool:
        """Whether an item waits here."""
        return verdict_id in self._places

    def add(self, item: Item) -> None:
        """Add a waiting item, or move it to the place that it has now."""
        self.remove(item.verdict_id)
        queue = queue_of(item)
        self._places[item.verdict_id] = (queue, item.turn_at)
        self._counts[queue] = self._counts.get(queue, 0) + 1
        heappush(self._heaps.setdefault(queue, []), (item.turn_at, item.verdict_id))

    def remove(self, verdict_id: str) -> None:
        """Remove an item. Does nothing if it is not here."""
        place = self._places.pop(verdict_id, None)
        if place is None:
            return
        queue = place[0]
        self._counts[queue] -= 1
        if self._counts[queue] == 0:
            del self._counts[queue], self._heaps[queue]
        elif 2 * self._counts[queue] < len(self._heaps[queue]):
            # Each removal pays for two entries of this, so that the heap is never much larger than the queue.
            entries = [entry for entry in self._heaps[queue] if self._places.get(entry[1]) == (queue, entry[0])]
            heapify(entries)
            self._heaps[queue] = entries

    def first(
        self,
        reader: Reader,
        tenants: Collection[str] = (),
        languages: Collection[str] = (),
        *,
        with_skipped: bool = True,
    ) -> str | None:
        """Give the item whose turn comes first. `tenants` and `languages` narrow what the reader may read.

        An item that the reader skipped comes after all others, or not at all without `with_skipped`.
        """
        best: tuple[bool, int, str] | None = None
        for queue in list(self._heaps):
            if (tenants and queue.tenant_id not in tenants) or (languages and queue.language not in languages):
                continue
            if not reader.may_read(queue):
                continue
            is_skipped = reader.name in queue.skipped_by
            if is_skipped and not with_skipped:
                continue
            top = (is_skipped, *self._top(queue))
            if best is None or top < best:
                best = top
        return best and best[2]

    def _top(self, queue: Queue) -> tuple[int, str]:
        heap = self._heaps[queue]
        while self._places.get(heap[0][1]) != (queue, heap[0][0]):
            heappop(heap)
        return heap[0]

    def waiting(self) -> Iterator[tuple[Queue, int]]:
        """Give each queue with the number of its items."""
        yield from self._counts.items()
