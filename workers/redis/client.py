"""Connections to Redis: redis-py, with commands of a thousand parts packed in C.

The form of `redis.url` decides whether they lead to one Redis, to the primary that Sentinels name, or to a cluster.
"""

from __future__ import annotations

import os
from typing import Any, TypeAlias

import hiredis
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from workers.errors import Misconfigured
from workers.redis.cluster import Cluster
from workers.redis.failures import failure
from workers.settings import Redis as RedisSettings
from workers.settings.redis_url import RedisServers, options_of, servers_of

Client: TypeAlias = Redis | Cluster
"""A client of one Redis, or of a cluster. Sentinels give a client of one Redis."""

FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
"""Options of a URL that name files or folders."""

DEFAULT_TIMEOUT_S = 5.0


def client_of(settings: RedisSettings, **options: Any) -> Client:
    """Return a client that connects with its first command, and does not repeat a command that fails.

    Raises:
        Misconfigured: a file that the URL names cannot be read; the client would say so as if Redis were away.
    """
    servers = servers_of(settings.url.get_secret_value())
    for name, file in options_of(servers.urls[0]).items():
        if name in FILES and file and not os.access(file, os.R_OK):
            raise Misconfigured(f"redis.url: its option {name} names what cannot be read: {file}")
    match servers.kind:
        case "sentinel":
            return _behind_sentinels(servers, options)
        case "cluster":
            return _cluster(servers, options)
    return _packing(Redis.from_url(servers.urls[0], **options))


async def connect(settings: RedisSettings) -> Client:
    """Connect, and check that Redis answers. No command waits for longer than `timeout_s`.

    Raises:
        Unavailable: it does not answer, or is loading its data.
        Misconfigured: it refuses this client, or the other way round.
    """
    redis = client_of(settings, socket_timeout=settings.timeout_s, socket_connect_timeout=settings.timeout_s)
    try:
        await redis.ping()
    except (RedisError, OSError) as error:
        await redis.aclose()
        raise failure(error) from error
    return redis


def _packing(redis: Redis) -> Redis:
    # With TLS or a socket file the URL chooses the class of connections.
    pool = redis.connection_pool
    pool.connection_class = type("PackingConnection", (_Packing, pool.connection_class), {})
    return redis


def _behind_sentinels(servers: RedisServers, options: dict[str, Any]) -> Redis:
    """Return a client of the primary. Before each connection it asks the Sentinels which server that is."""
    first = options_of(servers.urls[0])
    addresses = [(own["host"], own["port"]) for own in map(options_of, servers.urls)]
    shared = {name: value for name, value in first.items() if name not in ("host", "port")}
    # They are asked one after the other, and a start or a look-up waits for all of them.
    timeout_s = options.get("socket_connect_timeout", DEFAULT_TIMEOUT_S) / len(addresses)
    sentinels = Sentinel(  # type: ignore[no-untyped-call]  # the library's own
        addresses,
        sentinel_kwargs={
            **{name: value for name, value in first.items() if name.startswith("ssl")},
            **dict(servers.sentinel_login),
            "socket_timeout": timeout_s,
            "socket_connect_timeout": timeout_s,
            "retry": Retry(NoBackoff(), 0),
        },
    )
    redis: Redis = sentinels.master_for(servers.primary, connection_pool_class=_SentinelPool, **{**options, **shared})
    return _packing(redis)


class _SentinelPool(SentinelConnectionPool):
    """Closes the connections to the Sentinels together with those to the primary."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections: all, or those that nobody uses."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            await self.sentinel_manager.aclose()


def _cluster(servers: RedisServers, options: dict[str, Any]) -> Cluster:
    first = options_of(servers.urls[0])
    shared = {name: value for name, value in first.items() if name not in ("host", "port", "db")}
    nodes = [ClusterNode(own["host"], own["port"]) for own in map(options_of, servers.urls)]
    # Without a repetition, one command that fails costs one timeout.
    retry = options.pop("retry", Retry(NoBackoff(), 0))
    cluster = Cluster(startup_nodes=nodes, retry=retry, **{**options, **shared})
    kind = cluster.connection_kwargs["connection_class"] or Connection
    cluster.connection_kwargs["connection_class"] = type("PackingConnection", (_Packing, kind), {})
    return cluster


class _Packing:
    """Packs by hiredis, as redis-py's other client does: a micro-batch in a fifth of the time."""

    def pack_command(self, name: str, *arguments: Any) -> list[bytes]:
        """Pack one command. A name of two words is two parts."""
        return [hiredis.pack_command((*name.split(), *arguments))]
