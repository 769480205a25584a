"""The aggregates worker killed at any moment, joined, and with a Redis that loses its data: the counts stay exact."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from collections import Counter
from typing import Any

import pytest

from tests.aggregates import Verdicts, counted, create_topics, set_policy, signals, strikes, verdict, worker
from tests.site import Process, Site, eventually
from tests.stack import Stack
from workers.redis.client import connect

pytestmark = pytest.mark.timeout(240)

AUTHORS = 40
COUNTED = 'guardline_aggregates_row_updates_total{result="counted"}'
AGAIN = 'guardline_aggregates_row_updates_total{result="repeated"}'


class Flow:
    """Writes verdicts without a pause until it is told to stop, and knows how many it wrote for each author."""

    def __init__(self, site: Site) -> None:
        self._writer = Verdicts(site)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.written: Counter[str] = Counter()
        self.number = 0

    def __enter__(self) -> Flow:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._is_over.is_set():
            batch: list[dict[str, Any]] = []
            for _ in range(20):
                batch.append(verdict(self.number, author_id=f"a{self.number % AUTHORS}"))
                self.number += 1
            # One in four transactions is aborted.
            is_committed = self.number % 80 != 0
            self._writer.write(batch, commit=is_committed)
            if is_committed:
                self.written.update(one["author_id"] for one in batch)
            time.sleep(0.02)


def test_workers_that_are_killed_and_join_count_each_verdict_once(site: Site) -> None:
    """A count is off by nothing: a row knows by the position of a verdict whether it has counted it.

    Fails when a row takes a verdict that it has counted (the counts are then too high by what was read again), and when
    offsets are committed before the rows are written (too low).
    """
    create_topics(site)
    set_policy(site)
    running = worker(site)
    with Flow(site) as flow:
        for _ in range(2):
            counts(running)
            time.sleep(random.uniform(0.0, 1.0))
            running.send(signal.SIGKILL)
            running.wait()
            running = worker(site)
        counts(running)
        joined = worker(site)
        counts(joined)
    eventually(lambda: counted(site) == flow.written, "each verdict is counted once", 90)
    assert counted(site, "tenant") == {"": sum(flow.written.values())}
    assert running.metric(AGAIN) + joined.metric(AGAIN) > 0, "nothing was read again, so the test shows nothing"
    found = signals(site)
    assert {one["subject"] for one in found} == {author for author, count in flow.written.items() if count >= 3}
    assert {one["state"] for one in found} == {"raised"}
    for process in (running, joined):
        eventually(lambda process=process: lag(process) == (0, 0), "nothing is unread")  # type: ignore[misc]
    # Written again after a kill, with the same id: as many ids as crossings.
    crossings = {(one["subject"], one["threshold_name"]) for one in found}
    assert len({one["signal_id"] for one in found}) == len(crossings)
    stopped(joined)
    stopped(running)


def test_strikes_come_back_after_redis_has_lost_them(site: Site, stack: Stack) -> None:
    create_topics(site)
    set_policy(site)
    writer = Verdicts(site)
    running = worker(site, GUARDLINE_AGGREGATES__REWRITE_S="1")
    writer.write([verdict(1), verdict(2)])
    eventually(lambda: strikes(site, "a0") == 2, "the strikes are in Redis")
    asyncio.run(wiped(site))
    eventually(lambda: strikes(site, "a0") == 2, "the strikes are there again")
    stack.kill_redis()
    writer.write([verdict(3)])
    eventually(lambda: counted(site) == {"a0": 3}, "the worker counts without Redis")
    stack.restart_redis()
    eventually(lambda: strikes(site, "a0") == 3, "the strikes are written when Redis answers")
    stopped(running)


async def wiped(site: Site) -> None:
    settings = site.settings()
    redis = await connect(settings.redis)
    try:
        keys = [key async for key in redis.scan_iter(f"{settings.redis.namespace}:strikes:*")]
        assert len(keys) == 1
        await redis.delete(*keys)
    finally:
        await redis.aclose()


def counts(process: Process) -> None:
    """Wait until a worker has counted something."""
    eventually(lambda: '"worker started"' in process.text, "the worker has started")
    eventually(lambda: process.metric(COUNTED) > 0, "the worker counts")


def lag(process: Process) -> tuple[float, float] | None:
    """Give the lag in records and seconds, or None before the worker has measured it."""
    try:
        return process.metric("guardline_lag_records"), process.metric("guardline_lag_seconds")
    except StopIteration:
        return None


def stopped(process: Process) -> None:
    process.send(signal.SIGTERM)
    assert process.wait() == 0, process.text
