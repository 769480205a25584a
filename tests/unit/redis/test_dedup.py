"""Deduplication on a real Valkey; and that nothing depends on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import orjson
import pytest
from redis.asyncio import Redis

from schemas.event import EventDict
from tests.site import Site
from tests.stack import Stack
from workers.core.records import Event, Memory, Source, TopicPartition
from workers.redis.dedup import Dedup
from workers.redis.entries import SingleEntries
from workers.redis.memories import Memories
from workers.settings import Settings

SCORES = {"safe": 0.9, "controversial": 0.06, "unsafe": 0.04}
ASSESSMENT = {
    "severity": "Safe",
    "categories": [],
    "refusal": None,
    "scores": SCORES,
    "category_scores": {},
    "model": {"name": "m", "revision": "r", "template_hash": "h"},
    "windows": 1,
    "truncated_windows": 0,
    "truncated_context_tokens": 0,
    "views": [{"name": "raw", "severity": "Safe", "scores": SCORES}],
}
TIMEOUT_S = 0.5


@pytest.fixture
async def redis(site: Site) -> AsyncIterator[Redis]:
    client = Redis.from_url(site.environment["GUARDLINE_REDIS__URL"], socket_timeout=TIMEOUT_S)
    yield client
    await client.aclose()


def dedup_of(site: Site, redis: Redis) -> RememberingDedup:
    """A worker's dedup; a second one shares only Redis with the first."""
    return RememberingDedup(redis, site.settings())


def event_at(offset: int, **changes: str) -> Event:
    body = cast(EventDict, {"event_id": "e", "tenant_id": "acme", "surface": "chat", "text": "hello", **changes})
    return Event(Source(TopicPartition("t", 0), 1, offset), b"k", body, verdict_id=f"v{offset}")


async def look_up(dedup: Dedup, event: Event) -> Event:
    await dedup.look_up([event])
    return event


def memory_of(event: Event) -> Memory:
    return Memory(event.event_key, event.content_key, event.verdict_id, orjson.dumps(ASSESSMENT))


class RememberingDedup(Dedup):
    """A worker's dedup and its writer."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        super().__init__(redis, settings.dedup, namespace=settings.redis.namespace, fingerprint="f")
        self._redis, self._settings = redis, settings

    def memories(self, redis: Redis | None = None) -> Memories:
        return Memories(redis or self._redis, self._settings.dedup, self.claims)

    async def remember(self, *events: Event) -> None:
        """Write committed verdicts."""
        memories = self.memories()
        memories.add([memory_of(event) for event in events])
        writing = asyncio.create_task(memories.write())
        await memories.close()
        await writing


async def remember(dedup: RememberingDedup, event: Event) -> Event:
    await look_up(dedup, event)
    await dedup.remember(event)
    return event


async def test_an_event_produced_twice_names_the_first_verdict_and_needs_no_model(site: Site, redis: Redis) -> None:
    await remember(dedup_of(site, redis), event_at(0))
    again = await look_up(dedup_of(site, redis), event_at(5))
    assert again.duplicate_of == "v0"
    assert again.assessment == ASSESSMENT


async def test_the_first_verdict_stays_the_first(site: Site, redis: Redis) -> None:
    await remember(dedup_of(site, redis), event_at(0))
    await remember(dedup_of(site, redis), event_at(5))
    assert (await look_up(dedup_of(site, redis), event_at(9))).duplicate_of == "v0"


async def test_of_repeats_written_together_the_first_stays_the_first(site: Site, redis: Redis) -> None:
    dedup = dedup_of(site, redis)
    items = [event_at(0), event_at(5), event_at(9)]
    events = [await look_up(dedup, item) for item in items]
    dedup.release(events)  # As if the claims had overflowed: only the order of the writes counts.
    await dedup.remember(*events)
    assert (await look_up(dedup_of(site, redis), event_at(20))).duplicate_of == "v0"


async def test_a_server_without_msetex_stores_the_same(site: Site, redis: Redis) -> None:
    """The answer of such a server, from a real one: the test uses another command name."""
    dedup = dedup_of(site, redis)
    redis.msetex = lambda *_, **__: redis.execute_command("MSETEX_OF_LATER")  # type: ignore[method-assign,no-untyped-call]
    known = await remember(dedup, event_at(0))
    await remember(dedup, event_at(5))
    again = await look_up(dedup_of(site, redis), event_at(9))
    assert (again.duplicate_of, again.assessment) == ("v0", ASSESSMENT)
    assert dedup.is_up
    settings = site.settings().dedup
    assert 0 < await redis.ttl(known.event_key) <= settings.event_ttl_s
    assert 0 < await redis.ttl(known.content_key) <= settings.content_ttl_s


async def test_the_same_position_again_is_a_replay_and_no_duplicate(site: Site, redis: Redis) -> None:
    await remember(dedup_of(site, redis), event_at(0))
    replayed = await look_up(dedup_of(site, redis), event_at(0))
    assert replayed.duplicate_of is None
    assert replayed.assessment == ASSESSMENT


async def test_a_repeat_in_flight_is_recognised_before_redis_stores_it(site: Site, redis: Redis) -> None:
    dedup = dedup_of(site, redis)
    await look_up(dedup, event_at(0))
    assert (await look_up(dedup, event_at(1))).duplicate_of == "v0"


class LateRedis(Redis):
    """Sends an MGET only when the test allows it."""

    def __init__(self, client: Redis) -> None:
        super().__init__(connection_pool=client.connection_pool)
        self.may_send = asyncio.Event()

    async def mget(self, keys: Any, *args: Any) -> Any:
        await self.may_send.wait()
        return await super().mget(keys, *args)


async def test_a_repeat_that_redis_answers_first_still_names_the_first(site: Site, redis: Redis) -> None:
    """Two micro-batches use two connections."""
    late = LateRedis(redis)
    dedup = dedup_of(site, late)
    first = asyncio.create_task(look_up(dedup, event_at(0)))
    await asyncio.sleep(0)
    dedup._entries = SingleEntries(redis)
    assert (await look_up(dedup, event_at(1))).duplicate_of == "v0"
    late.may_send.set()
    assert (await first).duplicate_of is None


async def test_a_repeat_is_recognised_while_the_first_is_being_written(site: Site, redis: Redis) -> None:
    dedup = dedup_of(site, redis)
    known = await look_up(dedup, event_at(0))
    await redis.client_pause(10_000, all=False)  # Writes have to wait; reads do not.
    try:
        writing = asyncio.create_task(dedup.remember(known))
        await asyncio.sleep(0)
        assert (await look_up(dedup, event_at(1))).duplicate_of == "v0"
        assert not writing.done()
    finally:
        await redis.client_unpause()
    await writing
    assert dedup.is_up
    assert not dedup.claims


async def test_an_edit_is_judged(site: Site, redis: Redis) -> None:
    await remember(dedup_of(site, redis), event_at(0))
    edited = await look_up(dedup_of(site, redis), event_at(1, text="other"))
    assert (edited.duplicate_of, edited.assessment) == (None, None)


async def test_equal_content_of_another_event_is_known_within_its_tenant_alone(site: Site, redis: Redis) -> None:
    await remember(dedup_of(site, redis), event_at(0))
    other = await look_up(dedup_of(site, redis), event_at(1, event_id="e2"))
    assert (other.duplicate_of, other.assessment) == (None, ASSESSMENT)
    elsewhere = await look_up(dedup_of(site, redis), event_at(2, tenant_id="another"))
    assert (elsewhere.duplicate_of, elsewhere.assessment) == (None, None)


async def test_every_entry_expires(site: Site, redis: Redis) -> None:
    known = await remember(dedup_of(site, redis), event_at(0))
    settings = site.settings().dedup
    assert 0 < await redis.ttl(known.event_key) <= settings.event_ttl_s
    assert 0 < await redis.ttl(known.content_key) <= settings.content_ttl_s


def changed(**changes: object) -> bytes:
    return orjson.dumps({**ASSESSMENT, **changes})


LIES = {
    "not UTF-8": b"\xff",
    "not JSON": b"no json",
    "a list": b"[]",
    "nothing": b"{}",
    "null": b"null",
    "a severity alone": b'{"severity":"Safe"}',
    "an unknown severity": changed(severity="Bogus"),
    "a severity that is a list": changed(severity=[]),
    "an unknown category": changed(categories=["nope"]),
    "categories that are no list": changed(categories="Violent"),
    "no scores": changed(scores={}),
    "a score that is no probability": changed(scores={**SCORES, "safe": 7}),
    "category scores that are a list": changed(category_scores=[]),
    "a number as a string": changed(windows="1"),
    "a NaN beside it": changed()[:-1] + b',"more":NaN}',
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_invalid_data_in_redis_is_ignored(site: Site, redis: Redis, lie: bytes) -> None:
    known = await look_up(dedup_of(site, redis), event_at(0))
    await redis.set(known.event_key, lie, ex=60)
    await redis.set(known.content_key, lie, ex=60)
    assert (await look_up(dedup_of(site, redis), event_at(1))).assessment is None


async def test_a_redis_that_hangs_costs_one_timeout_and_is_tried_again_later(
    site: Site, redis: Redis, stack: Stack
) -> None:
    dedup = dedup_of(site, redis)
    await remember(dedup, event_at(0))
    started = time.monotonic()
    client = Redis.from_url(stack.redis)
    await client.client_pause(1500)
    await client.aclose()
    for offset in range(1, 20):
        assert (await look_up(dedup, event_at(offset))).assessment is None
    assert not dedup.is_up
    assert time.monotonic() - started < 3 * TIMEOUT_S
    deadline = time.monotonic() + 20
    while (await look_up(dedup, event_at(30))).assessment is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert dedup.is_up
