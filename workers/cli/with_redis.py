"""Calls Redis for one command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from workers.redis.client import Client
    from workers.settings import Redis

T = TypeVar("T")


async def has_policy(redis: Client, namespace: str, tenant: str) -> bool:
    """Say whether a tenant has a policy of its own, valid or not."""
    from workers.policy.document import InvalidPolicy
    from workers.redis.policy_store import PolicyStore

    try:
        return await PolicyStore(redis, namespace).get(tenant) is not None
    except InvalidPolicy:
        return True


def with_redis(settings: Redis, use: Callable[[Client], Awaitable[T]]) -> T:
    """Connect, return what `use` returns, and close.

    Raises:
        Unavailable, Misconfigured: Redis does not answer, or refuses.
    """
    from redis.exceptions import RedisError

    from workers.redis.client import client_of
    from workers.redis.failures import failure

    async def run() -> T:
        redis = client_of(settings, socket_connect_timeout=5)
        try:
            return await use(redis)
        except (RedisError, OSError) as error:
            raise failure(error) from error
        finally:
            await redis.aclose()

    return asyncio.run(run())
