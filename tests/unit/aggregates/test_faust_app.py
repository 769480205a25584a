"""What the worker changes in Faust: which records its consumer reads, and which offsets it commits."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from workers.aggregates.faust_app import app_of
from workers.settings import Settings

VERDICTS = TP("moderation.verdicts", 0)
CHANGELOG = TP("g.aggregates-rows-changelog", 0)


class Made:
    """An application that is not started, and its consumer."""

    def __init__(self) -> None:
        self.has_failed = False
        self.app = app_of(Settings(), "g.aggregates", 4, lambda: self.has_failed)
        self.app.Table("rows", key_type=bytes, value_type=bytes, partitions=4)
        self.consumer: Any = self.app.consumer
        self.asked: list[set[TP]] = []
        self.fetched: list[int] = []
        self.while_fetching: Callable[[], None] = lambda: None
        self.subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=None))
        self.consumer._thread._consumer = SimpleNamespace(_subscription=self.subscription)
        self.consumer._thread.getmany = self._getmany
        self.consumer._thread.commit = self._commit

    async def _getmany(self, active: set[TP], timeout: float) -> dict[TP, Any]:  # noqa: ASYNC109
        self.asked.append(set(active))
        self.while_fetching()
        return {VERDICTS: [SimpleNamespace(offset=offset) for offset in self.fetched]} if self.fetched else {}

    async def _commit(self, offsets: dict[TP, int]) -> bool:
        return True


@pytest.fixture
async def made() -> AsyncIterator[Made]:
    made = Made()
    yield made
    made.consumer._thread.thread_loop.close()


async def test_no_verdict_is_fetched_before_the_rows_are_restored(made: Made) -> None:
    made.app.rebalancing = True
    await made.consumer._getmany({VERDICTS, CHANGELOG}, 1.0)
    await made.consumer._getmany({VERDICTS}, 1.0)
    assert made.asked == [{CHANGELOG}]
    made.app.rebalancing = False
    await made.consumer._getmany({VERDICTS, CHANGELOG}, 1.0)
    assert made.asked[1:] == [{VERDICTS, CHANGELOG}]


@pytest.mark.parametrize("transactions", [1, 5])
async def test_offsets_are_committed_past_the_markers_of_transactions(made: Made, transactions: int) -> None:
    """Each transaction of one record takes two offsets: the record, and the marker of its end."""
    consumer = made.consumer
    before = None
    for offset in range(0, 2 * transactions, 2):
        if before is not None:
            await consumer._add_gap(VERDICTS, before + 1, offset)  # As Faust calls it.
        consumer._acked[VERDICTS].append(offset)
        before = offset
    assert consumer._new_offset(VERDICTS) == 2 * transactions - 1


async def test_a_worker_holds_no_copies_of_the_rows_of_others(made: Made) -> None:
    assert made.app.conf.table_standby_replicas == 0


@pytest.mark.parametrize("is_on_disk", [False, True])
def test_only_a_worker_with_rows_on_disk_makes_folders(
    is_on_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = tmp_path / "rows"
    settings = Settings(aggregates={"folder": str(rows) if is_on_disk else None})

    async def make() -> None:
        app_of(settings, "g.aggregates", 4, lambda: False)._create_directories()

    asyncio.run(make())
    assert list(tmp_path.iterdir()) == ([rows] if is_on_disk else [])


async def test_nothing_is_committed_after_a_write_has_failed(made: Made) -> None:
    assert await made.consumer._commit({VERDICTS: 5})
    made.has_failed = True
    assert not await made.consumer._commit({VERDICTS: 5})


async def test_the_producer_writes_in_order_and_each_record_once(made: Made) -> None:
    producer: Any = made.app.producer
    assert producer._settings_extra() == {"acks": "all", "enable_idempotence": True}


async def test_the_lag_counts_what_no_agent_got_and_no_marker_behind_the_last_record(made: Made) -> None:
    """A topic that nobody writes to ends with a marker, so the lag would never be 0."""
    consumer = made.consumer
    fetched = SimpleNamespace(lso=None, has_valid_position=False, position=None)
    assignment = SimpleNamespace(state_value={VERDICTS: fetched}.get)
    assert consumer.unread(VERDICTS) == 0, "nothing is assigned"
    made.subscription.subscription.assignment = assignment
    assert (consumer.unread(VERDICTS), consumer.unread(CHANGELOG)) == (0, 0), "the end is not known"
    vars(fetched).update(lso=12, has_valid_position=True, position=4)
    assert consumer.unread(VERDICTS) == 8, "nothing was fetched yet"
    made.fetched = [4, 6, 8]
    await consumer._getmany({VERDICTS}, 1.0)
    fetched.position = 12  # Past the record at offset 10, which was aborted, and its marker.
    assert consumer.unread(VERDICTS) == 12
    consumer._read_offset[VERDICTS] = 4
    assert consumer.unread(VERDICTS) == 7
    consumer._read_offset[VERDICTS] = 8
    assert consumer.unread(VERDICTS) == 0
    fetched.lso = 14
    assert consumer.unread(VERDICTS) == 2

    def in_transit() -> None:
        """The consumer's thread has taken the record at 12, and this one does not have it yet."""
        fetched.position = 14
        seen.append(consumer.unread(VERDICTS))

    seen: list[int] = []
    made.while_fetching, made.fetched = in_transit, [12]
    await consumer._getmany({VERDICTS}, 1.0)
    assert (seen, consumer.unread(VERDICTS)) == ([2], 5)
    consumer._read_offset[VERDICTS] = 12
    assert consumer.unread(VERDICTS) == 0
