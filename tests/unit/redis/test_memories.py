"""Which verdicts are stored in Redis, in which order, and what happens when Redis is slow or down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import orjson
import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from tests.site import Site
from tests.unit.redis.test_dedup import ASSESSMENT, TIMEOUT_S, dedup_of, event_at, look_up, memory_of
from workers import telemetry
from workers.redis import memories as module
from workers.redis.memories import WRITE_COUNT, Memories


@pytest.fixture
async def redis(site: Site) -> AsyncIterator[Redis]:
    client = Redis.from_url(site.environment["GUARDLINE_REDIS__URL"], socket_timeout=TIMEOUT_S)
    yield client
    await client.aclose()


@asynccontextmanager
async def writing(memories: Memories) -> AsyncIterator[None]:
    """Run the writing task; at the end everything is written."""
    task = asyncio.create_task(memories.write())
    yield
    await memories.close()
    await task


@asynccontextmanager
async def write_paused(redis: Redis) -> AsyncIterator[None]:
    """Writes have to wait; reads do not."""
    await redis.client_pause(10_000, all=False)
    try:
        yield
    finally:
        await redis.client_unpause()


@asynccontextmanager
async def away(redis: Redis) -> AsyncIterator[None]:
    """Redis answers no write until the pause ends by itself."""
    await redis.client_pause(int(3 * TIMEOUT_S * 1000))
    started = time.monotonic()
    yield
    await asyncio.sleep(3 * TIMEOUT_S - (time.monotonic() - started))


@contextmanager
def forgotten(count: int) -> Iterator[None]:
    before = total()
    yield
    assert total() - before == count


def total() -> float:
    (metric,) = telemetry.FORGOTTEN.collect()
    return next(sample.value for sample in metric.samples if sample.name.endswith("_total"))


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


class SlowFirstWrite(Redis):
    """Delays the first write, like a server that answers late."""

    def __init__(self, client: Redis) -> None:
        super().__init__(connection_pool=client.connection_pool)
        self.order: list[int] = []
        self.may_write = asyncio.Event()

    async def msetex(self, mapping: Any, *args: Any, **kwargs: Any) -> Any:
        self.order.append(len(mapping))
        if len(self.order) == 1:
            await self.may_write.wait()
        return await super().msetex(mapping, *args, **kwargs)


async def test_a_later_commit_never_overtakes_an_earlier_one(site: Site, redis: Redis) -> None:
    """With one task for each commit, the second verdict counted as the first when the first was written late."""
    dedup = dedup_of(site, redis)
    events = [await look_up(dedup, event_at(offset)) for offset in (0, 5)]
    for event in events:
        dedup.release([event])  # As if they had been too many to be held: the order alone has to do.
    late = SlowFirstWrite(redis)
    memories = dedup.memories(late)
    async with writing(memories):
        memories.add([memory_of(events[0])])
        await until(lambda: late.order == [1])
        memories.add([memory_of(events[1])])
        await asyncio.sleep(0.05)
        assert late.order == [1], "nothing else is written meanwhile"
        late.may_write.set()
    assert (await look_up(dedup_of(site, redis), event_at(9))).duplicate_of == "v0"


async def test_a_repeat_that_is_committed_first_is_not_taken_for_the_first(site: Site, redis: Redis) -> None:
    """Two copies in two partitions: the later one may be committed first, and its verdict names the earlier one."""
    dedup = dedup_of(site, redis)
    first, second = [await look_up(dedup, event_at(offset)) for offset in (0, 5)]
    assert second.duplicate_of == "v0"
    memories = dedup.memories()
    async with writing(memories):
        memories.add([memory_of(second)])
        await until(lambda: len(memories) == 0)
        memories.add([memory_of(first)])
    assert (await look_up(dedup_of(site, redis), event_at(9))).duplicate_of == "v0"


async def test_no_duplicate_names_a_verdict_that_a_dead_letter_replaced(site: Site, redis: Redis) -> None:
    """Its output was too large. The assessment is stored nevertheless."""
    dedup = dedup_of(site, redis)
    replaced = await look_up(dedup, event_at(0))
    memories = dedup.memories()
    async with writing(memories):
        memories.add([replace(memory_of(replaced), has_verdict=False)])
    again = await look_up(dedup_of(site, redis), event_at(9))
    assert (again.duplicate_of, again.assessment) == (None, ASSESSMENT)


async def test_the_claim_of_a_verdict_ends_when_a_dead_letter_replaces_it(site: Site, redis: Redis) -> None:
    """The claim ends at once, not when Redis has been written."""
    dedup = dedup_of(site, redis)
    replaced = await look_up(dedup, event_at(0))
    dedup.memories().add([replace(memory_of(replaced), has_verdict=False)])
    assert (await look_up(dedup, event_at(5))).duplicate_of is None


async def test_no_duplicate_names_a_verdict_of_a_revoked_partition(site: Site, redis: Redis) -> None:
    dedup = dedup_of(site, redis)
    dedup.release([await look_up(dedup, event_at(0))])
    assert (await look_up(dedup, event_at(5))).duplicate_of is None


async def test_look_ups_continue_while_writes_fail(site: Site, redis: Redis) -> None:
    dedup = dedup_of(site, redis)
    known = await look_up(dedup, event_at(0))
    await redis.set(known.content_key, orjson.dumps(ASSESSMENT), ex=60)
    memories = dedup.memories()
    async with writing(memories):
        async with write_paused(redis):
            memories.add([memory_of(known)])
            await until(lambda: not memories.is_up)
            assert (await look_up(dedup, event_at(5))).assessment == ASSESSMENT
            assert dedup.is_up
        await until(lambda: memories.is_up and not len(memories))
    assert (await look_up(dedup_of(site, redis), event_at(9))).duplicate_of == "v0"


async def test_results_committed_while_redis_was_down_are_stored_when_it_is_up(site: Site, redis: Redis) -> None:
    dedup = dedup_of(site, redis)
    events = [await look_up(dedup, event_at(offset, event_id=f"e{offset}")) for offset in range(WRITE_COUNT + 50)]
    memories = dedup.memories()
    with forgotten(0):
        async with writing(memories):
            async with away(redis):
                memories.add([memory_of(event) for event in events])
                await until(lambda: not memories.is_up)
                assert len(memories) == len(events)
            await until(lambda: memories.is_up and not len(memories))
    other = dedup_of(site, redis)
    for offset in (0, WRITE_COUNT, WRITE_COUNT + 49):
        again = await look_up(other, event_at(1_000 + offset, event_id=f"e{offset}"))
        assert again.duplicate_of == f"v{offset}"


async def test_a_retried_write_keeps_its_place(site: Site, redis: Redis) -> None:
    dedup = dedup_of(site, redis)
    events = [await look_up(dedup, event_at(offset)) for offset in (0, 5)]
    dedup.release(events)  # As if they had been too many to be held: the order alone has to do.
    memories = dedup.memories()
    async with writing(memories):
        async with write_paused(redis):
            memories.add([memory_of(events[0])])
            await until(lambda: len(memories) == 0)
            memories.add([memory_of(events[1])])
            await until(lambda: not memories.is_up)
        await until(lambda: memories.is_up and not len(memories))
    assert (await look_up(dedup_of(site, redis), event_at(9))).duplicate_of == "v0"


async def test_a_full_queue_drops_the_oldest(site: Site, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    dedup = dedup_of(site, redis)
    events = [await look_up(dedup, event_at(offset, event_id=f"e{offset}")) for offset in range(25)]
    memories = dedup.memories()
    with forgotten(15):
        for event in events:
            memories.add([memory_of(event)])
            assert len(memories) <= 10
    async with writing(memories):
        pass
    other = dedup_of(site, redis)
    found = [(await look_up(other, event_at(90 + offset, event_id=f"e{offset}"))).duplicate_of for offset in range(25)]
    assert found == [None] * 15 + [f"v{offset}" for offset in range(15, 25)]
    # This worker still recognises them by their claims.
    assert (await look_up(dedup, event_at(190, event_id="e0"))).duplicate_of == "v0"


async def test_closing_waits_until_everything_is_written(site: Site, redis: Redis) -> None:
    dedup = dedup_of(site, redis)
    events = [await look_up(dedup, event_at(offset, event_id=f"e{offset}")) for offset in range(3 * WRITE_COUNT)]
    memories = dedup.memories()
    task = asyncio.create_task(memories.write())
    memories.add([memory_of(event) for event in events])
    await memories.close()
    assert await redis.exists(*[event.event_key for event in events]) == len(events)
    await task


async def test_closing_does_not_wait_for_a_redis_that_is_down(site: Site, redis: Redis) -> None:
    dedup = dedup_of(site, redis)
    known = await look_up(dedup, event_at(0))
    memories = dedup.memories()
    async with away(redis):
        started = time.monotonic()
        with forgotten(1):
            async with writing(memories):
                memories.add([memory_of(known)])
        assert time.monotonic() - started < 2 * TIMEOUT_S


async def test_without_deduplication_nothing_is_written_or_kept(site: Site, redis: Redis) -> None:
    settings = site.settings(GUARDLINE_DEDUP__ENABLED="false")
    dedup = dedup_of(site, redis)
    known = await look_up(dedup, event_at(0))
    memories = Memories(redis, settings.dedup, dedup.claims)
    async with writing(memories):
        memories.add([memory_of(known)])
        assert (len(memories), len(dedup.claims)) == (0, 0)
    assert await redis.exists(known.event_key, known.content_key) == 0
