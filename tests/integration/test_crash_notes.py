"""The notes of what is at the engine, on a real Valkey: each crash counts once, and no note stays behind."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from redis.asyncio import Redis

from infra.devstack.kafka import free_ports
from tests.site import Site
from workers.errors import Fatal, Misconfigured, Unavailable
from workers.redis.crash_notes import CrashNotes

KEYS = [f"content:{number:016d}".encode() for number in range(4)]


class Workers:
    """Workers of one namespace."""

    def __init__(self, redis: Redis, namespace: str) -> None:
        self.redis = redis
        self.namespace = namespace

    async def started(self, worker_id: str) -> CrashNotes:
        notes = CrashNotes(self.redis, namespace=self.namespace, worker_id=worker_id, crashes_ttl_s=60)
        await notes.start()
        return notes

    async def dies(self, worker_id: str, *batches: list[bytes], is_alone: bool = False) -> None:
        """Start a worker, send the batches to the engine, and end without removing the notes."""
        notes = await self.started(worker_id)
        blocks = [notes.noted(batch, is_alone=is_alone) for batch in batches]
        for block in blocks:
            await block.__aenter__()
        assert notes._beating is not None
        notes._beating.cancel()

    async def noted(self) -> int:
        return int(await self.redis.hlen(f"{self.namespace}:{{crashes}}:at-engine"))


@pytest.fixture
async def workers(site: Site) -> AsyncIterator[Workers]:
    async with Redis.from_url(site.settings().redis.url.get_secret_value()) as redis:
        yield Workers(redis, site.settings().redis.namespace)


async def test_two_crashes_make_a_suspect_and_a_crash_alone_excludes_it(workers: Workers) -> None:
    await workers.dies("a", KEYS)
    first = await workers.started("a")
    assert first.suspects(KEYS) == set()
    await workers.dies("a", KEYS[:2])
    second = await workers.started("a")
    assert second.suspects(KEYS) == set(KEYS[:2])
    assert not any(second.is_unjudgeable(key) for key in KEYS)
    await workers.dies("a", KEYS[:1], is_alone=True)
    third = await workers.started("a")
    assert [third.is_unjudgeable(key) for key in KEYS] == [True, False, False, False]
    for notes in (first, second, third):
        await notes.close()


async def test_crashes_with_other_content_exclude_nothing(workers: Workers) -> None:
    for _ in range(6):
        await workers.dies("a", KEYS)
    notes = await workers.started("a")
    assert notes.suspects(KEYS) == set(KEYS)
    assert not any(notes.is_unjudgeable(key) for key in KEYS)
    await notes.close()


async def test_a_crash_counts_once_whichever_worker_finds_it(workers: Workers) -> None:
    await workers.dies("a", KEYS, KEYS)
    found = [await workers.started("a") for _ in range(3)]
    assert [notes.suspects(KEYS) for notes in found] == [set(), set(), set()]
    assert await workers.noted() == 0
    for notes in found:
        await notes.close()


async def test_only_a_worker_without_a_heartbeat_counts_as_crashed(workers: Workers) -> None:
    other = await workers.started("b")
    async with other.noted(KEYS):
        notes = await workers.started("a")
        assert await workers.noted() == 1
        # As if its time to live had passed.
        await workers.redis.delete(f"{workers.namespace}:{{crashes}}:alive:{other._session}")
        assert other._beating is not None
        other._beating.cancel()
        await notes._beat()
        assert await workers.noted() == 0
    await notes.close()


async def test_a_content_judged_alone_without_a_crash_is_no_longer_a_suspect(workers: Workers) -> None:
    for _ in range(2):
        await workers.dies("a", KEYS)
    notes = await workers.started("a")
    await notes.absolve(KEYS[0])
    await notes._beat()
    assert notes.suspects(KEYS) == set(KEYS[1:])
    await notes.close()


@pytest.mark.parametrize(
    ("error", "left"),
    [(None, 0), (Unavailable("later"), 0), (Misconfigured("no server takes the key"), 0), (Fatal("it is gone"), 1)],
)
async def test_an_orderly_exit_removes_the_notes_and_an_engine_crash_leaves_them(
    workers: Workers, error: Exception | None, left: int
) -> None:
    notes = await workers.started("a")
    with suppress(Unavailable, Fatal):
        async with notes.noted(KEYS):
            assert await workers.noted() == 1
            if error is not None:
                raise error
    still_at_the_engine = notes.noted(KEYS[:1])
    if left == 0:
        await still_at_the_engine.__aenter__()
    await notes.close()
    assert await workers.noted() == left


async def test_everything_that_is_written_expires(workers: Workers) -> None:
    await workers.dies("a", KEYS)
    notes = await workers.started("b-lives")
    other = await workers.started("a")
    async with other.noted(KEYS):
        await other._beat()
        names = await workers.redis.keys(f"{workers.namespace}:*")
        assert len(names) >= 4
        assert [name for name in names if await workers.redis.ttl(name) < 0] == []
    await notes.close()
    await other.close()


async def test_invalid_data_about_crashes_does_not_stop_the_heartbeat(workers: Workers) -> None:
    """The other workers would count a running worker without a heartbeat as crashed."""
    crashes = f"{workers.namespace}:{{crashes}}"
    lies: list[str | bytes] = [KEYS[0][-16:], b"many", KEYS[1][-16:], b"\xff", KEYS[2][-16:], b"9" * 5000]
    await workers.redis.hset(crashes, items=lies)
    notes = await workers.started("b")
    assert notes.suspects(KEYS) == set()
    await workers.dies("a", KEYS)
    await workers.redis.hset(crashes, items=lies)
    other = await workers.started("a")
    assert await workers.noted() == 0, "the death is counted"
    await notes._beat()
    assert await workers.redis.ttl(f"{workers.namespace}:{{crashes}}:alive:{notes._session}") > 0
    for worker in (notes, other):
        await worker.close()


async def test_without_redis_no_notes_are_written_and_nothing_fails() -> None:
    async with Redis(port=free_ports(1)[0], socket_connect_timeout=0.5) as redis:
        notes = CrashNotes(redis, namespace=secrets.token_hex(4), worker_id="a", crashes_ttl_s=60)
        await notes.start()
        async with notes.noted(KEYS):
            assert notes.suspects(KEYS) == set()
        await notes.close()
