"""What the two steps know of each other and of other workers: their lag, and the requests to forget an author."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP
from structlog.testing import capture_logs

from tests.aggregates import verdict
from tests.shown import shown
from tests.unit.aggregates.seen import NOW_MS, read_of
from workers.aggregates import pipeline
from workers.aggregates.pipeline import Aggregation
from workers.aggregates.rows import Key
from workers.aggregates.strike_writer import StrikeWriter
from workers.aggregates.updates import Batch, partition_of
from workers.errors import Fatal, Unavailable
from workers.kafka.forgetting import Requests
from workers.kafka.internal_topics import Prepared
from workers.settings import Settings

PREPARED = Prepared("g.aggregates", "g.aggregates-updates", "g.aggregates-rows-changelog", 4, 1, 2)
VERDICTS, UPDATES = TP("moderation.verdicts", 0), TP(PREPARED.updates, 1)


class Rows:
    """Rows in a dict, in the place of the table of Faust."""

    are_full = False
    count = 0
    place = 0

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def snapshot(self) -> Iterator[tuple[bytes, bytes, int | None]]:
        for key, row in self.rows.items():
            if row is not None:
                yield key, row, self.place

    async def set(self, rows: dict[bytes, bytes | None], partition: int) -> None:
        self.rows |= rows


class Made:
    """An aggregation that is not started, with a consumer that has what the test says."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.requests = Requests(Settings())
        strikes = cast(StrikeWriter, SimpleNamespace(put=lambda *_: None))
        self.aggregation = Aggregation(
            Settings(), PREPARED, rules_of=lambda _: None, strikes=strikes, fail=self._fail, requests=self.requests
        )
        self.aggregation._rows = self.rows  # type: ignore[assignment]
        self.unread = {VERDICTS: 0, UPDATES: 0}
        self.consumer: Any = self.aggregation.app.consumer
        self.consumer.assignment = lambda: set(self.unread)
        self.consumer.unread = self.unread.__getitem__

    def _fail(self, error: BaseException) -> None:
        raise error

    async def count(self, *authors: str) -> None:
        """Let the second step take a record with a verdict on each author."""
        batch = Batch(1)
        for number, author in enumerate(authors):
            batch.add(read_of(verdict(number, author_id=author), offset=number))
        ((_, value),) = batch.records(1)

        async def events() -> AsyncIterator[Any]:
            yield SimpleNamespace(
                message=SimpleNamespace(value=value, partition=0, timestamp=NOW_MS / 1_000), ack=lambda: None
            )

        stream = SimpleNamespace(noack=lambda: SimpleNamespace(events=events))
        await self.aggregation._count(stream)

    @property
    def authors(self) -> set[str]:
        keys = (Key("author", "acme", name) for name in ("a0", "a1"))
        return {key.subject for key in keys if self.rows.rows.get(key.encoded()) is not None}


@pytest.fixture
async def made() -> AsyncIterator[Made]:
    made = Made()
    yield made
    made.consumer._thread.thread_loop.close()


@pytest.mark.parametrize(
    ("unread", "lag", "age_s"), [((0, 0), 0, 0), ((7, 0), 7, 60), ((0, 5), 5, 300), ((7, 5), 12, 300)]
)
async def test_the_lag_has_what_either_step_has_not_read_and_the_age_of_the_older_one(
    made: Made, unread: tuple[int, int], lag: int, age_s: float
) -> None:
    made.unread |= dict(zip((VERDICTS, UPDATES), unread, strict=True))
    now_s = time.time()
    made.aggregation._last_s, made.aggregation._last_counted_s = now_s - 60, now_s - 300
    assert made.aggregation._observe() == unread[0], "the verdicts that the first step has not handed over"
    assert shown("guardline_lag_records", group=PREPARED.group) == lag
    assert shown("guardline_lag_seconds", group=PREPARED.group) == pytest.approx(age_s, abs=30)


async def test_nothing_is_counted_before_the_requests_of_an_earlier_owner_of_the_rows_are_known(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new owner of a partition may count verdicts for an author whom the earlier owner was asked to forget."""
    outcomes: list[Callable[[], None]] = []

    def unavailable() -> None:
        assert made.authors == set()
        raise Unavailable("kafka does not answer")

    def one_request() -> None:
        assert made.authors == set()
        made.requests.known.note("acme", "a0", NOW_MS)

    monkeypatch.setattr(made.requests, "read", lambda: outcomes.pop(0)())
    monkeypatch.setattr(pipeline, "RETRY_S", 0.01)
    outcomes += [unavailable, one_request]
    await made.aggregation._on_assigned()
    await asyncio.gather(made.count("a0", "a1"), made.aggregation._know_forgotten())
    assert (made.authors, outcomes) == ({"a1"}, []), "read once for an assignment"


async def test_an_assignment_that_comes_while_the_requests_are_read_lets_them_be_read_again(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    def read() -> None:
        reads.append(made.aggregation._assignment)
        if len(reads) == 1:
            made.aggregation._assignment += 1

    monkeypatch.setattr(made.requests, "read", read)
    await made.aggregation._on_assigned()
    await made.count("a0")
    assert reads == [1, 2]


async def test_requests_that_stay_unreadable_end_the_worker_with_one_warning_before(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read() -> None:
        raise Unavailable("topics: moderation.forget not found")

    monkeypatch.setattr(made.requests, "read", read)
    monkeypatch.setattr(pipeline, "RETRY_S", 0.01)
    monkeypatch.setattr(pipeline, "GIVE_UP_S", 0.1)
    await made.aggregation._on_assigned()
    with (
        capture_logs() as logs,
        pytest.raises(Fatal, match=r"topics\.forget: nothing was counted for .* moderation\.forget not found"),
    ):
        await made.count("a0")
    assert [line["event"] for line in logs] == ["nothing is counted until the requests to forget can be read"]


async def test_a_row_in_the_partition_of_another_number_of_partitions_ends_the_worker(made: Made) -> None:
    await made.count("a0")
    for key in list(made.rows.rows):
        if key != Key("author", "acme", "a0").encoded():
            del made.rows.rows[key]
    place = partition_of(Key("author", "acme", "a0").encoded(), PREPARED.partitions)
    made.rows.place = place
    await made.aggregation._look()
    made.rows.place = place + 1
    with pytest.raises(Fatal, match=f"is in partition {place + 1} instead of {place}: .* Stop all aggregates workers"):
        await made.aggregation._look()
