"""Gives the commands whose time has come, and keeps the metrics of the waiting items up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from schemas.review_command import CommandKind, ReviewCommand, ReviewRole
from workers import telemetry
from workers.core.records import Output
from workers.errors import Unavailable
from workers.review.desk import Desk, Due
from workers.review.item import Item
from workers.review.processing import written
from workers.review.reading import SYSTEM, command_id
from workers.settings import Topics

log = structlog.get_logger(__name__)

TICK_S = 0.1
RETRY_MS = 5_000
"""When a command is given again, if it was not applied meanwhile, as while Kafka is down."""
AT_ONCE = 500
"""The most commands of one tick: after a long pause, people's commands must not wait behind all of them."""
MEASURE_TICKS = 50
"""The metrics are set every 5 s: 100,000 items take about 50 ms to count."""


class Ticking:
    """The clock of the items: ends leases, lets decisions take effect, and closes what is too old."""

    def __init__(
        self, desk: Desk, send: Callable[[Output], Awaitable[None]], topics: Topics, now_ms: Callable[[], int]
    ) -> None:
        self._desk = desk
        self._send = send
        self._topics = topics
        self._now_ms = now_ms

    async def run(self) -> None:
        """Run until cancelled."""
        ticks = 0
        while True:
            if ticks % MEASURE_TICKS == 0:
                measure(self._desk, self._now_ms())
            ticks += 1
            await self.tick()
            await asyncio.sleep(TICK_S)

    async def tick(self) -> None:
        """Give the commands that are due."""
        now = self._now_ms()
        due = self._desk.due(now, AT_ONCE, RETRY_MS)
        results = await asyncio.gather(
            *(self._send(written(self._topics, command_of(one, self._desk.items[one.verdict_id], now))) for one in due),
            return_exceptions=True,
        )
        for result in results:
            if isinstance(result, Unavailable):
                log.warning("a command of the worker itself could not be stored; it is given again", reason=str(result))
                break
            if isinstance(result, BaseException):
                raise result


def command_of(due: Due, item: Item, now_ms: int) -> ReviewCommand:
    """Give the command for what is due. A repeat has the same id, so it takes effect once."""
    if due.kind == "settle" and item.pending is not None:
        cause = item.pending.command_id
    elif due.kind == "end_lease" and item.lease is not None:
        cause = item.lease.command_id
    else:
        cause = str(item.expires_at)
    return ReviewCommand(
        command_id=command_id(due.kind, item.verdict_id, cause),
        verdict_id=item.verdict_id,
        kind=CommandKind(due.kind),
        by=SYSTEM,
        role=ReviewRole.SYSTEM,
        at=now_ms,
    )


def measure(desk: Desk, now_ms: int) -> None:
    """Set the metrics of the items."""
    waiting = {"first_half": 0, "second_half": 0, "overdue": 0}
    oldest = now_ms
    for item in desk.items.values():
        if not item.is_waiting or item.lease is not None:
            continue
        oldest = min(oldest, item.waiting_since)
        if now_ms > item.due_at:
            waiting["overdue"] += 1
        else:
            waiting["first_half" if 2 * now_ms < item.waiting_since + item.due_at else "second_half"] += 1
    for due, count in waiting.items():
        telemetry.REVIEW_WAITING.labels(due).set(count)
    telemetry.REVIEW_OLDEST_SECONDS.set((now_ms - oldest) / 1000)
    telemetry.REVIEW_LEASES.set(desk.leases)
    telemetry.REVIEW_ITEMS.set(len(desk.items))
