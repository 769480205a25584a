"""The table of rows: Faust restores it from its changelog topic, and this module writes it.

Guarantee: a row is in the changelog topic before the offset of the record that changed it is committed. If a write
fails, nothing is committed any more, and the worker ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import faust
from faust.types import TP

NAME = "rows"


class Rows:
    """The rows of the partitions that this worker owns, by their encoded keys.

    Only to be used while Faust handles an event of the partition: the store on disk asks Faust for it.
    """

    def __init__(
        self, app: faust.App, *, partitions: int, max_rows: int, fail: Callable[[BaseException], None]
    ) -> None:
        self._app = app
        self._fail = fail
        self._max_rows = max_rows
        self._table: Any = app.Table(NAME, key_type=bytes, value_type=bytes, partitions=partitions)
        self.changelog: str = self._table.changelog_topic_name
        self.count = 0

    @property
    def are_full(self) -> bool:
        """Whether there are as many rows as the settings allow."""
        return self.count >= self._max_rows

    def get(self, key: bytes) -> bytes | None:
        """Return a row, None if there is none."""
        found: bytes | None = self._table.data.get(key)
        return found

    async def set(self, rows: dict[bytes, bytes | None], partition: int) -> None:
        """Write rows, and send them to the changelog topic. Does not wait until they are there."""
        store, producer = self._table.data, self._app.producer
        places = getattr(store, "_key_partition", None)
        for key, row in rows.items():
            if row is None:
                self.count -= store.pop(key, None) is not None
            else:
                self.count += key not in store
                store[key] = row
                if places is not None:  # The store in memory drops the rows of partitions that have gone by this.
                    places[key] = partition
        for key, row in rows.items():
            sent = await producer.send(self.changelog, key, row, partition, None, None)
            sent.add_done_callback(partial(self._sent, partition))

    def _sent(self, partition: int, sent: asyncio.Future[Any]) -> None:
        if sent.cancelled():
            return
        if (error := sent.exception()) is not None:
            self._fail(error)
        elif partition in getattr(self._table.data, "_dbs", ()):
            self._table.data.set_persisted_offset(TP(self.changelog, partition), sent.result().offset)

    def snapshot(self) -> Iterator[tuple[bytes, bytes, int | None]]:
        """Give all rows with their partition. Rows that change meanwhile may come as they were, or not at all.

        The partition is None if the store does not know it.
        """
        store = self._table.data
        if hasattr(store, "_dbs"):
            for key, row in store.items():
                yield key, row, None
        else:
            places = store._key_partition
            for key in list(store.data):
                if (row := store.data.get(key)) is not None:
                    yield key, row, places.get(key)
