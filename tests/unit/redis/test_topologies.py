"""A cluster, and a primary behind Sentinels, do what a single Redis does."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis as Single
from redis.crc import key_slot
from redis.exceptions import RedisError, ResponseError

from infra.devstack.kafka import HOST
from schemas.policy import Policy
from tests.redis_servers import QUICK_MS, Servers, asked, cluster, sentinels
from tests.site import eventually
from tests.unit.redis.test_dedup import event_at, memory_of
from tests.unit.redis.test_memories import until
from tests.unit.redis.test_rights import PAGE, WORKER, changes_policies, said_by, works
from tests.unit.redis.test_strikes import standing_of
from workers.core.keys import TAGS, Keys
from workers.core.records import Event
from workers.errors import GuardlineError, Misconfigured, Unavailable
from workers.redis.client import Client, connect
from workers.redis.dedup import Dedup
from workers.redis.entries import entries_of
from workers.redis.memories import Memories
from workers.redis.policy_cache import PolicyCache
from workers.redis.policy_store import PolicyStore
from workers.redis.strikes import Author, StoredStrikes
from workers.settings import Dedup as DedupSettings
from workers.settings import Redis as RedisSettings

NAMESPACE = "guardline"
TIMEOUT_S = 5.0


@pytest.fixture(scope="module", params=["cluster", "sentinels"])
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    with cluster() if request.param == "cluster" else sentinels() as servers:
        yield servers


def settings_of(servers: Servers, **changes: object) -> RedisSettings:
    return RedisSettings.model_validate({"url": servers.url, "timeout_s": TIMEOUT_S, **changes})


@pytest.fixture
async def redis(servers: Servers) -> AsyncIterator[Client]:
    client = await connect(settings_of(servers))
    yield client
    await client.aclose()


async def test_entries_are_read_in_the_order_of_their_keys_and_the_first_stays_the_first(redis: Client) -> None:
    entries = entries_of(redis)
    keys = [b"n:event:{%02x}%s" % (number % TAGS, os.urandom(16)) for number in range(300)]
    values = {key: b"%d" % number for number, key in enumerate(keys) if number % 3}
    await entries.set(values, 100, only_new=True)
    await entries.set(dict.fromkeys(keys[:10], b"later"), 100, only_new=True)
    expected = [b"later" if number % 3 == 0 and number < 10 else values.get(key) for number, key in enumerate(keys)]
    assert await entries.get(keys) == expected
    assert await entries.get([]) == []
    await entries.set({keys[0]: b"newest"}, 100, only_new=False)
    assert await entries.get(keys[:1]) == [b"newest"]
    assert 0 < await redis.ttl(keys[1]) <= 100


async def test_the_strikes_of_many_authors_are_written_read_and_deleted(redis: Client) -> None:
    stored = StoredStrikes(redis, namespace=NAMESPACE, secret="s")
    authors = [Author("acme", f"author-{number}") for number in range(300)]
    await stored.write({author: standing_of(number) for number, author in enumerate(authors, 1)})
    now = int(time.time() * 1_000)
    assert [one and one.value(now) for one in await stored.read(authors)] == [*range(1, 301)]
    await stored.write({**dict.fromkeys(authors, standing_of()), authors[7]: standing_of(5)})
    assert [number for number, one in enumerate(await stored.read(authors)) if one and one.steps] == [7]
    assert await stored.delete(authors[7])


async def test_a_worker_and_guardline_policy_work_on_it(servers: Servers) -> None:
    assert await said_by(works, settings_of(servers)) == []
    assert await said_by(changes_policies, settings_of(servers)) == []


async def test_a_repeat_is_found_and_a_change_of_a_policy_is_in_force(servers: Servers, redis: Client) -> None:
    first = [event_at(offset, event_id=f"e{offset}", text=f"text {offset}") for offset in range(100)]
    again = [event_at(offset + 500, event_id=f"e{offset}", text=f"text {offset}") for offset in range(100)]
    await look_up_and_remember(redis, first)
    dedup = Dedup(redis, DedupSettings(), namespace=NAMESPACE, fingerprint="f")
    await dedup.look_up(again)
    assert [event.duplicate_of for event in again] == [event.verdict_id for event in first]
    cache = PolicyCache(settings_of(servers))
    await cache.start()
    try:
        version = await PolicyStore(redis).put("acme", Policy(id="acme"))
        await until(lambda: "acme" in cache.snapshot() and cache.snapshot()["acme"].version == version)
    finally:
        await cache.close()


async def look_up_and_remember(redis: Client, events: list[Event]) -> None:
    dedup = Dedup(redis, DedupSettings(), namespace=NAMESPACE, fingerprint="f")
    await dedup.look_up(events)
    memories = Memories(redis, DedupSettings(), dedup.claims)
    memories.add([memory_of(event) for event in events])
    writing = asyncio.create_task(memories.write())
    await memories.close()
    await writing
    assert memories.is_up


def test_the_keys_of_a_micro_batch_spread_over_the_nodes_and_each_event_is_in_one_slot() -> None:
    keys = Keys(NAMESPACE, secret="s", fingerprint="f")
    counts = [0] * 12
    for number in range(5_000):
        body = event_at(number, event_id=f"e{number}", text=f"text {number}").body
        slots = {key_slot(key) for key in keys.of(body, is_shared=False)}
        assert len(slots) == 1
        counts[slots.pop() * len(counts) // 16_384] += 1
    assert min(counts) > 0
    assert max(counts) < 3 * 5_000 / len(counts)


async def test_the_rights_in_the_docs_are_enough_and_a_wrong_login_is_named(servers: Servers) -> None:
    """The passwords have the characters that a URL writes otherwise."""
    data = [port for port in servers.processes if port not in servers.watchers]
    (row,) = re.findall(r"^\| a worker, with a cluster \| in addition (.*) \|$", PAGE, re.MULTILINE)
    commands = [*WORKER, *(re.findall(r"`([A-Z| ]+)`", row) if not servers.watchers else [])]
    (row,) = re.findall(r"^\| the user of the Sentinels \| (.*) \|$", PAGE, re.MULTILINE)
    watching = re.findall(r"`([A-Z| ]+)`", row)
    for ports, rights in ((data, commands), (servers.watchers, watching)):
        for port in ports:
            names = [f"+{command.lower().replace(' ', '|')}" for command in rights]
            asked(port, "ACL", "SETUSER", "guard", "reset", "on", ">p/w,@", f"~{NAMESPACE}:*", *names)
    url = servers.url.replace("://", "://guard:p%2Fw%2C%40@")
    if servers.watchers:
        url += "?sentinel_username=guard&sentinel_password=p%2Fw%2C%40"
    assert await said_by(works, settings_of(servers, url=url)) == []
    with pytest.raises(Misconfigured, match="Redis does not let this user in"):
        await connect(settings_of(servers, url=url.replace("//guard:p", "//guard:x")))
    if servers.watchers:
        with pytest.raises(GuardlineError, match="the Sentinels do not let this user in: check sentinel_username"):
            await connect(settings_of(servers, url=url.replace("sentinel_password=p", "sentinel_password=x")))
        with pytest.raises(
            Unavailable, match="the Sentinels name no primary that is up: check the name after the hosts"
        ):
            await connect(settings_of(servers, url=servers.url.replace("/mine/", "/yours/")))


async def test_a_url_of_the_wrong_form_is_said_to_be_one(servers: Servers) -> None:
    wrong = {"redis+sentinel://{}/mine": "this is a Redis and not a Sentinel: the URL has to begin with redis://"}
    if servers.watchers:
        wrong["redis+cluster://{}"] = "this Redis is not a cluster: the URL has to begin with redis://"
    else:
        wrong["redis://{}"] = "this is a node of a Redis Cluster: the URL has to begin with redis+cluster://"
    data = [port for port in servers.processes if port not in servers.watchers]
    for form, sentence in wrong.items():
        # One node of a cluster may have every key that a worker without events needs.
        said = [await said_by(works, settings_of(servers, url=form.format(f"{HOST}:{port}"))) for port in data]
        assert sentence in str(said), form


async def test_a_start_waits_for_servers_that_are_not_there() -> None:
    for url in ("redis+cluster://127.0.0.1:1,127.0.0.1:2", "redis+sentinel://127.0.0.1:1,127.0.0.1:2/mine"):
        with pytest.raises(Unavailable, match=r"^redis\.url: "):
            await connect(RedisSettings.model_validate({"url": url}))


async def test_a_server_that_hangs_costs_one_timeout(servers: Servers) -> None:
    redis = await connect(settings_of(servers, timeout_s=0.5))
    entries = entries_of(redis)
    keys = [b"n:event:{%02x}" % tag for tag in range(TAGS)]
    await entries.get(keys)
    async with Single(host=HOST, port=servers.primary) as admin:
        await admin.client_pause(2_500)
        began = time.monotonic()
        with pytest.raises(Exception, match=r"(?i)time"):
            await entries.get(keys)
        assert time.monotonic() - began < 2
        await admin.client_unpause()
    async with asyncio.timeout(20):
        while True:
            try:
                await entries.get(keys)
                break
            except Exception:
                await asyncio.sleep(0.1)
    await redis.aclose()


async def test_a_write_that_full_servers_refuse_does_not_disturb_the_commands_under_way(servers: Servers) -> None:
    data = [port for port in servers.processes if port not in servers.watchers]
    entries = dict.fromkeys((b"n:event:{%02x}" % tag for tag in range(TAGS)), b"v")
    async with aclosing(await connect(settings_of(servers, timeout_s=60))) as redis:
        reading: asyncio.Future[Any] = asyncio.ensure_future(redis.blpop(["n:list"], timeout=50))
        try:
            await until(lambda: any(asked(port, "INFO", "clients")["blocked_clients"] for port in data))
            for port in data:
                asked(port, "CONFIG", "SET", "maxmemory", 1)
            with pytest.raises(ResponseError, match="maxmemory"):
                await entries_of(redis).set(entries, 100, only_new=True)
        finally:
            for port in data:
                asked(port, "CONFIG", "SET", "maxmemory", 0)
        await redis.rpush("n:list", "found")
        assert [*await reading] == [b"n:list", b"found"]


def is_replicated(port: int) -> bool:
    found = asked(port, "INFO", "replication")
    return bool(found["slave0"]["offset"] == found["master_repl_offset"])


async def test_entries_are_found_again_on_the_node_that_replaces_a_killed_one() -> None:
    """Without any other command: nothing else makes the client ask who has which slots."""
    key = b"n:event:{policies}"
    with cluster(QUICK_MS, with_replica_of=key) as servers:
        redis = await connect(settings_of(servers))
        entries = entries_of(redis)
        await entries.set({key: b"v1"}, 100, only_new=True)
        eventually(partial(is_replicated, servers.primary), "the replica has the entry")
        servers.kill(servers.primary)
        async with asyncio.timeout(40):
            while True:
                try:
                    assert await entries.get([key]) == [b"v1"]
                    break
                except (RedisError, OSError):
                    await asyncio.sleep(0.1)
        await redis.aclose()
