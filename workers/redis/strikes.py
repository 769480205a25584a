"""The strikes of authors in Redis. The aggregates worker writes them, and the moderation worker reads them.

An entry is a `Standing` as JSON, below 1 kB, so that a reader can tell the number of strikes at its own time. Redis may
lose entries at any time: then an author has fewer strikes, until the aggregates worker writes them again.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from workers import telemetry
from workers.core.keys import StrikeKeys
from workers.core.records import Event
from workers.policy.policy import CompiledPolicy
from workers.policy.strikes import NO_STRIKES, Standing
from workers.redis.breaker import Breaker
from workers.redis.client import Client
from workers.redis.entries import entries_of

_DECODER = msgspec.json.Decoder(Standing)


class Author(NamedTuple):
    """An author at a tenant."""

    tenant_id: str
    author_id: str


class StoredStrikes:
    """Reads, writes and deletes entries. Every call raises redis-py's errors, and may then be repeated as it was."""

    def __init__(self, redis: Client, *, namespace: str, secret: str) -> None:
        self._redis = redis
        self._entries = entries_of(redis)
        self._keys = StrikeKeys(namespace, secret=secret)

    async def read(self, authors: Sequence[Author]) -> list[Standing | None]:
        """Return the strikes of each author, with one MGET. An author without an entry has none.

        None: the entry is invalid, so the strikes are not known.
        """
        stored = await self._entries.get([self._keys.of(*author) for author in authors])
        return [NO_STRIKES if entry is None else _parsed(entry) for entry in stored]

    async def write(self, standings: Mapping[Author, Standing]) -> None:
        """Store the strikes of authors, until their last strike ends. Entries without strikes are deleted.

        Two standings that last equally long are written with one command, and all entries are deleted with one.
        """
        by_ttl: dict[int, dict[bytes, bytes]] = defaultdict(dict)
        ended: list[bytes] = []
        for author, standing in standings.items():
            if standing.steps:
                # No strike begins later than now, so all of them have ended after this time.
                ttl_s = -(-standing.decay.lasts_ms // 1_000)
                by_ttl[ttl_s][self._keys.of(*author)] = msgspec.json.encode(standing)
            else:
                ended.append(self._keys.of(*author))
        if ended:
            await self._redis.delete(*ended)
        for ttl_s, entries in by_ttl.items():
            await self._entries.set(entries, ttl_s, only_new=False)

    async def delete(self, author: Author) -> bool:
        """Delete the strikes of an author. False: there were none."""
        return bool(await self._redis.delete(self._keys.of(*author)))


class StrikeLookups:
    """Looks up the strikes of a micro-batch's authors, with one MGET, or on a cluster with one request to each node.

    Guarantee: `look_up` raises no error of Redis, and waits for `redis.timeout_s` at most. It calls Redis only if a
    policy asks for strikes, and not for `breaker.RETRY_AFTER_S` after a failed call.
    """

    def __init__(self, redis: Client, *, namespace: str, secret: str) -> None:
        self._stored = StoredStrikes(redis, namespace=namespace, secret=secret)
        self._breaker = Breaker("redis_strikes", "rules with min_strikes do not match")

    async def look_up(
        self, events: Iterable[Event], policies: Mapping[str, CompiledPolicy], default: CompiledPolicy
    ) -> None:
        """Set `Event.strikes` where the tenant's policy asks for them. They stay None if they are not known."""
        asking: list[tuple[Event, Author]] = []
        for event in events:
            tenant = event.body["tenant_id"]
            if policies.get(tenant, default).uses_strikes and (author_id := event.body.get("author_id")) is not None:
                asking.append((event, Author(tenant, author_id)))
        if not asking:
            return
        authors = list(dict.fromkeys(author for _, author in asking))
        found = await self._breaker.ask(self._stored.read, authors)
        standings: dict[Author, Standing | None] = {} if found is None else dict(zip(authors, found, strict=True))
        now_ms = int(time.time() * 1_000)
        known = 0
        for event, author in asking:
            standing = standings.get(author)
            if standing is not None:
                event.strikes = standing.value(now_ms)
                known += 1
        telemetry.STRIKES_LOOKED_UP.labels("known").inc(known)
        telemetry.STRIKES_LOOKED_UP.labels("unknown").inc(len(asking) - known)


def _parsed(entry: bytes) -> Standing | None:
    try:
        return _DECODER.decode(entry)
    except (msgspec.ValidationError, msgspec.DecodeError):
        return None
