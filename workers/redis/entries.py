"""Reads and writes many small entries at once, on a single Redis or on a cluster.

Every entry stands alone: on a cluster the entries are on several nodes, and a write may succeed for some of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.commands.core import DataPersistOptions
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import MovedError, NoScriptError, ResponseError
from redis.exceptions import TimeoutError as NoAnswer

from workers.redis.client import Client
from workers.redis.cluster import Cluster, outages

SET_EACH = """
for i = 1, #KEYS do
  if ARGV[1] == 'NX' then redis.call('SET', KEYS[i], ARGV[i + 2], 'EX', ARGV[2], 'NX')
  else redis.call('SET', KEYS[i], ARGV[i + 2], 'EX', ARGV[2]) end
end
"""
"""Does what MSETEX does, in three times as much of the server's time. For servers without MSETEX (before Redis 8.4 and
Valkey 9.1), and for writes of which some keys exist, because MSETEX with NX then writes none."""


class Entries(Protocol):
    """Reads and writes entries. Both calls raise redis-py's errors, and may then be repeated as they were."""

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values in the order of the keys, None where there is no entry."""

    async def set(self, entries: Mapping[bytes, Any], ttl_s: int, *, only_new: bool) -> None:
        """Write entries that expire. With `only_new`, those that exist stay as they are."""


def entries_of(redis: Client) -> Entries:
    """Return the entries of a client."""
    return ClusterEntries(redis) if isinstance(redis, Cluster) else SingleEntries(redis)


class SingleEntries:
    """Entries on one server: one command for all of them."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._set_each = redis.register_script(SET_EACH)
        self._has_msetex = True

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Read with one MGET."""
        values: Any = await self._redis.mget(keys)
        return list(values)

    async def set(self, entries: Mapping[bytes, Any], ttl_s: int, *, only_new: bool) -> None:
        """Write with one MSETEX, or with a script."""
        condition = DataPersistOptions.NX if only_new else None
        if self._has_msetex:
            try:
                if await self._redis.msetex(entries, condition, ex=ttl_s):
                    return
            except ResponseError as error:
                if "unknown command" not in str(error):
                    raise
                self._has_msetex = False
        await self._set_each(keys=[*entries], args=[condition.value if condition else "", ttl_s, *entries.values()])


class ClusterEntries:
    """Entries on a cluster: one command for all that are in one slot, and one request to each node."""

    def __init__(self, redis: Cluster) -> None:
        self._redis = redis
        self._set_each = redis.register_script(SET_EACH)

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Read with one MGET for each slot."""
        async with self._asked():
            return list(await self._redis.mget_nonatomic(keys))

    async def set(self, entries: Mapping[bytes, Any], ttl_s: int, *, only_new: bool) -> None:
        """Write with one script for each slot."""
        slots: dict[int, dict[bytes, Any]] = {}
        for key, value in entries.items():
            slots.setdefault(self._redis.keyslot(key), {})[key] = value
        async with self._asked():
            try:
                await self._set_slots(slots.values(), "NX" if only_new else "", ttl_s)
            except NoScriptError:
                await self._redis.script_load(SET_EACH)
                await self._set_slots(slots.values(), "NX" if only_new else "", ttl_s)

    async def _set_slots(self, slots: Iterable[Mapping[bytes, Any]], condition: str, ttl_s: int) -> None:
        pipeline = self._redis.pipeline()
        for entries in slots:
            # Its method `evalsha` refuses to work on a cluster, although all keys of the call are in one slot.
            pipeline.execute_command(
                "EVALSHA", self._set_each.sha, len(entries), *entries, condition, ttl_s, *entries.values()
            )
        await pipeline.execute()

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator[None]:
        try:
            with outages():
                yield
        except (NoConnection, NoAnswer, MovedError, OSError):
            # A pipeline that fails does not ask again who has which slots. After this, the next command does. But it
            # also closes the connections of the commands under way, so a command that is only refused does not do it.
            await self._redis.aclose()
            raise
