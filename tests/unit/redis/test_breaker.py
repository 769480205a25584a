"""Which failures of Redis the breaker hides from the caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import DataError

from infra.devstack.kafka import free_ports
from tests.shown import shown
from tests.site import Site
from workers.redis import breaker as module
from workers.redis.breaker import Breaker


@pytest.fixture
async def redis(site: Site) -> AsyncIterator[Redis]:
    async with Redis.from_url(site.environment["GUARDLINE_REDIS__URL"]) as client:
        yield client


async def test_after_a_failure_redis_is_not_called_for_a_while(
    redis: Redis, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_AFTER_S", 0.3)
    breaker = Breaker("redis_lookups", "all goes on")
    failed = shown("guardline_failed_attempts_total", at="redis")
    asked = 0

    async def ask(client: Redis) -> Any:
        nonlocal asked
        asked += 1
        return await client.ping()

    async with Redis(port=free_ports(1)[0]) as nobody:
        assert await breaker.ask(ask, nobody) is None
    assert not breaker.is_up
    assert shown("guardline_open_circuits", circuit="redis_lookups") == 1
    assert shown("guardline_failed_attempts_total", at="redis") == failed + 1
    assert await breaker.ask(ask, redis) is None
    assert asked == 1, "it was left alone"
    await asyncio.sleep(0.35)
    assert await breaker.ask(ask, redis)
    assert breaker.is_up
    assert shown("guardline_open_circuits", circuit="redis_lookups") == 0
    assert shown("guardline_failed_attempts_total", at="redis") == failed + 1


async def test_a_command_that_redis_refuses_opens_the_breaker_and_raises_nothing(redis: Redis, site: Site) -> None:
    breaker = Breaker("redis_lookups", "all goes on")
    key = f"{site.settings().redis.namespace}:text"
    await redis.set(key, "no number", ex=60)
    assert await breaker.ask(redis.incr, key) is None
    assert not breaker.is_up


async def test_a_bug_of_the_caller_does_not_count_as_a_failure_of_redis(redis: Redis) -> None:
    breaker = Breaker("redis_lookups", "all goes on")
    with pytest.raises(DataError):
        await breaker.ask(redis.set, "key", object())
    with pytest.raises(ValueError, match="a bug"):
        await breaker.ask(fails)
    assert breaker.is_up


async def fails() -> None:
    raise ValueError("a bug")
