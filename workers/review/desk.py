"""All items in memory, with the queues, the leases and the next time at which something is due. Pure: no I/O, no clock.

Owned by the event loop. The review worker rebuilds it at start from the compacted topic.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import heappop, heappush
from typing import NamedTuple

from msgspec.structs import replace

from workers.review.item import Item
from workers.review.permits import not_waiting, unknown
from workers.review.queues import Queues, Reader, language_of
from workers.review.refusal import conflict

DUE = ("settle", "end_lease", "expire")


class Due(NamedTuple):
    """A command that the worker gives itself at this time, in milliseconds since 1970-01-01 UTC."""

    at_ms: int
    verdict_id: str
    kind: str


class Desk:
    """The items by their ids, and what is derived from them.

    An item whose arrival is not committed is `hidden`: it is here, and in no queue.
    """

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.queues = Queues()
        self._hidden: set[str] = set()
        self._due: list[Due] = []
        self._planned: dict[tuple[str, str], int] = {}
        """When `_due` has each command next. Other entries of `_due` were replaced by an earlier one."""
        self._asked: dict[tuple[str, str], int] = {}
        """Until when each command that was given is not given again."""
        self._by_author: dict[tuple[str, str], set[str]] = {}
        self._by_verdict: dict[str, str] = {}
        """The item of each superseding verdict, also of those that were superseded in turn."""
        self._leased: dict[str, set[str]] = {}
        """The items that each person has on lease."""
        self._reserved: set[str] = set()

    def find(self, verdict_id: str) -> Item:
        """Give an item by its id, or by the id of one of its superseding verdicts.

        Raises:
            Refusal: there is none.
        """
        item = self.items.get(self._by_verdict.get(verdict_id, verdict_id))
        if item is None:
            raise unknown(verdict_id)
        return item

    def root_of(self, verdict_id: str) -> str:
        """Give the id of the item of a verdict, or the verdict's own id if it has no item."""
        return self._by_verdict.get(verdict_id, verdict_id)

    def load(self, items: Iterable[Item], lease_until_ms: int) -> None:
        """Take the items of an earlier process. Each lease gets its full length again."""
        for item in items:
            if item.lease is not None:
                item = replace(item, lease=replace(item.lease, until=lease_until_ms))
            self.put(item)

    def put(self, item: Item, *, is_hidden: bool = False) -> None:
        """Take an item in the state that it has now."""
        verdict_id = item.verdict_id
        before = self.items.get(verdict_id)
        if before is None or before.verdict is not item.verdict:
            self._index_author(before, item)
        if before is not None and before.lease is not None and (item.lease is None or item.lease.by != before.lease.by):
            self._leased.get(before.lease.by, set()).discard(verdict_id)
        self._by_verdict.update(dict.fromkeys(item.published, verdict_id))
        self.items[verdict_id] = item
        if item.lease is not None:
            self._leased.setdefault(item.lease.by, set()).add(verdict_id)
        if is_hidden:
            self._hidden.add(verdict_id)
        self._reserved.discard(verdict_id)
        self._place(item)
        self._schedule(item)

    def reveal(self, verdict_id: str) -> None:
        """Put an item into its queue: its arrival is committed."""
        self._hidden.discard(verdict_id)
        if (item := self.items.get(verdict_id)) is not None:
            self._place(item)

    def is_hidden(self, verdict_id: str) -> bool:
        """Whether the arrival of an item is not committed yet."""
        return verdict_id in self._hidden

    def remove(self, verdict_id: str) -> None:
        """Delete an item."""
        item = self.items.pop(verdict_id, None)
        if item is None:
            return
        self._index_author(item, None)
        for published in item.published:
            self._by_verdict.pop(published, None)
        if item.lease is not None:
            self._leased.get(item.lease.by, set()).discard(verdict_id)
        for kind in DUE:
            self._asked.pop((verdict_id, kind), None)
            self._planned.pop((verdict_id, kind), None)
        self._hidden.discard(verdict_id)
        self._reserved.discard(verdict_id)
        self.queues.remove(verdict_id)

    def reserve(
        self,
        reader: Reader,
        tenants: Collection[str] = (),
        languages: Collection[str] = (),
        *,
        with_skipped: bool = True,
    ) -> Item | None:
        """Give the next item to a person, and to nobody else until `put` or `free`."""
        verdict_id = self.queues.first(reader, tenants, languages, with_skipped=with_skipped)
        if verdict_id is None:
            return None
        self._reserved.add(verdict_id)
        self.queues.remove(verdict_id)
        return self.items[verdict_id]

    def free(self, verdict_id: str) -> None:
        """Put a reserved item back, if the command for which it was reserved was not applied."""
        if verdict_id in self._reserved:
            self._reserved.discard(verdict_id)
            if (item := self.items.get(verdict_id)) is not None:
                self._place(item)

    def leased_by(self, person: str) -> list[Item]:
        """Give the items that a person has on lease, the oldest lease first."""
        items = [self.items[verdict_id] for verdict_id in self._leased.get(person, ())]
        return sorted(items, key=lambda item: item.lease.since if item.lease else 0)

    @property
    def leases(self) -> int:
        """The number of items on lease."""
        return sum(map(len, self._leased.values()))

    def beat(self, verdict_id: str, person: str, until_ms: int, now_ms: int) -> Item:
        """Lengthen a lease. Only in memory: after a restart each lease has its full length again.

        Raises:
            Refusal: there is no such item, or the person does not have it on lease.
        """
        item = self.find(verdict_id)
        lease = item.holder(now_ms)
        if lease is None and not item.is_waiting:
            raise not_waiting(item, person)
        if lease is None:
            raise conflict("the lease is over: take the item again")
        if lease.by != person:
            raise conflict(f"{lease.by} has the item on lease", by=lease.by, at_ms=lease.since)
        item = replace(item, lease=replace(lease, until=until_ms))
        self.items[item.verdict_id] = item
        self._schedule(item)
        return item

    def of_author(self, tenant_id: str, author_id: str) -> list[str]:
        """Name the items of an author."""
        return sorted(self._by_author.get((tenant_id, author_id), ()))

    def due(self, now_ms: int, most: int, retry_ms: int) -> list[Due]:
        """Give what is due now, at most `most` commands, the earliest first. Each is due again after `retry_ms`.

        It is not given again once `put` has taken the item's next state.
        """
        found: list[Due] = []
        while self._due and self._due[0].at_ms <= now_ms and len(found) < most:
            at_ms, verdict_id, kind = heappop(self._due)
            if self._planned.get((verdict_id, kind)) != at_ms:
                continue
            del self._planned[(verdict_id, kind)]
            item = self.items.get(verdict_id)
            due_ms = next((one.at_ms for one in _dues(item) if one.kind == kind), None) if item is not None else None
            if due_ms is None:
                continue
            due_ms = max(due_ms, self._asked.get((verdict_id, kind), due_ms))
            if due_ms > now_ms:  # It was put off, as a lease is by a heartbeat.
                self._plan(Due(due_ms, verdict_id, kind))
                continue
            self._asked[(verdict_id, kind)] = now_ms + retry_ms
            again = Due(now_ms + retry_ms, verdict_id, kind)
            self._plan(again)
            found.append(again)
        return found

    def _place(self, item: Item) -> None:
        is_free = item.lease is None and item.verdict_id not in self._hidden
        if item.is_waiting and is_free and item.verdict_id not in self._reserved:
            self.queues.add(item)
        else:
            self.queues.remove(item.verdict_id)

    def _schedule(self, item: Item) -> None:
        for due in _dues(item):
            self._asked.pop((item.verdict_id, due.kind), None)
            self._plan(due)

    def _plan(self, due: Due) -> None:
        """Plan a command, unless it is planned already, and not later: `due` looks again at that time."""
        planned_ms = self._planned.get((due.verdict_id, due.kind))
        if planned_ms is None or due.at_ms < planned_ms:
            self._planned[(due.verdict_id, due.kind)] = due.at_ms
            heappush(self._due, due)

    def _index_author(self, before: Item | None, after: Item | None) -> None:
        for item, is_added in ((before, False), (after, True)):
            if item is None or (author := item.author_id) is None:
                continue
            key = (item.tenant_id, author)
            if is_added:
                self._by_author.setdefault(key, set()).add(item.verdict_id)
            elif key in self._by_author:
                self._by_author[key].discard(item.verdict_id)
                if not self._by_author[key]:
                    del self._by_author[key]


def may_see(reader: Reader, item: Item) -> bool:
    """Whether the person works for the item's tenant and reads its language."""
    return reader.may_see(item.tenant_id, language_of(item.language))


def _dues(item: Item) -> list[Due]:
    """Give what is due for an item, and when."""
    found = []
    if item.settles_at is not None:
        found.append(Due(item.settles_at, item.verdict_id, "settle"))
    if item.lease is not None:
        found.append(Due(item.lease.until, item.verdict_id, "end_lease"))
    if item.expires_at is not None and item.pending is None:
        found.append(Due(item.expires_at, item.verdict_id, "expire"))
    return found
