"""When the worker ticks and looks at its rows, whatever its partitions do meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from workers.aggregates import upkeep as module
from workers.aggregates.upkeep import Upkeep

NOW_MS = 1_795_000_000_000


class Rows:
    """Rows that note the ticks and the looks, and the upkeep that cares for them."""

    def __init__(self) -> None:
        self.is_settled = True
        self.unread = 0
        self.ticks: list[int] = []
        self.looks = 0
        self.has_changed = asyncio.Event()
        self.upkeep = Upkeep(
            is_settled=lambda: self.is_settled,
            unread=lambda: self.unread,
            tick=self._tick,
            look=self._look,
            look_every_s=3_600,
            now_ms=lambda: NOW_MS,
        )

    async def _tick(self, now_ms: int) -> None:
        self.ticks.append(now_ms)
        self.has_changed.set()

    async def _look(self) -> None:
        self.looks += 1
        self.has_changed.set()

    async def change(self) -> None:
        await asyncio.wait_for(self.has_changed.wait(), 20)
        self.has_changed.clear()


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Rows:
    monkeypatch.setattr(module, "TICK_S", 0.01)
    monkeypatch.setattr(module, "SETTLE_S", 0.01)
    return Rows()


async def test_a_look_that_is_asked_for_during_a_rebalance_happens_after_it(rows: Rows) -> None:
    rows.is_settled = False
    task = asyncio.create_task(rows.upkeep.look_often())
    rows.upkeep.look_soon()
    await asyncio.sleep(0.05)
    assert rows.looks == 0
    rows.is_settled = True
    await rows.change()
    assert rows.looks == 1
    rows.upkeep.look_soon()
    await rows.change()
    assert rows.looks == 2
    task.cancel()


async def test_no_tick_is_sent_before_the_rows_are_restored(rows: Rows) -> None:
    rows.is_settled = False
    task = asyncio.create_task(rows.upkeep.tick_often())
    await asyncio.sleep(0.05)
    assert rows.ticks == []
    rows.is_settled = True
    await rows.change()
    assert rows.ticks[0] == NOW_MS
    task.cancel()


def test_the_time_that_has_passed_is_that_of_the_newest_verdict_while_verdicts_wait(rows: Rows) -> None:
    rows.unread = 3
    assert rows.upkeep.passed_ms() == NOW_MS, "no verdict was read yet"
    rows.upkeep.has_read(NOW_MS - 60_000)
    rows.upkeep.has_read(NOW_MS - 90_000)
    assert rows.upkeep.passed_ms() == NOW_MS - 60_000
    rows.unread = 0
    assert rows.upkeep.passed_ms() == NOW_MS


def test_a_verdict_of_a_clock_that_is_ahead_lets_no_time_pass(rows: Rows) -> None:
    rows.unread = 3
    rows.upkeep.has_read(NOW_MS + 3 * 86_400_000)
    assert rows.upkeep.passed_ms() == NOW_MS
