"""Connections to Redis, and what its failures mean: redis-py, with commands of a thousand parts packed in C."""

from __future__ import annotations

import os
from ssl import SSLEOFError, SSLError, SSLZeroReturnError
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from workers.errors import Misconfigured, Unavailable
from workers.settings import Redis as RedisSettings

FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
"""Options of a URL that name files or folders."""


def client_of(settings: RedisSettings, **options: Any) -> Redis:
    """Return a client that connects with its first command.

    Raises:
        Misconfigured: a file that the URL names cannot be read; the client would say so as if Redis were away.
    """
    redis = Redis.from_url(settings.url.get_secret_value(), **options)
    for name in FILES:
        file = redis.connection_pool.connection_kwargs.get(name)
        if file and not os.access(file, os.R_OK):
            raise Misconfigured(f"redis.url: its option {name} names what cannot be read: {file}")
    return redis


async def connect(settings: RedisSettings) -> Redis:
    """Connect, and check that Redis answers. No command waits for longer than `timeout_s`.

    Raises:
        Unavailable: it does not answer, or is loading its data.
        Misconfigured: it refuses this client, or the other way round.
    """
    redis = client_of(settings, socket_timeout=settings.timeout_s, socket_connect_timeout=settings.timeout_s)
    # With TLS or a socket file the URL chooses the class of connections.
    pool = redis.connection_pool
    pool.connection_class = type("PackingConnection", (_Packing, pool.connection_class), {})
    try:
        await redis.ping()
    except (RedisError, OSError) as error:
        await redis.aclose()
        raise failure(error) from error
    return redis


PASSING_WORDS = ("BUSY", "MISCONF", "NOREPLICAS", "TRYAGAIN")
"""What Redis answers with an error, and would answer otherwise a moment later: by the first word of the errors that
have no class of their own."""

RIGHTS = "docs/operations.md lists what a worker needs"


def failure(error: RedisError | OSError) -> Unavailable | Misconfigured:
    """Say whether a failure of Redis may pass. The sentence names the setting."""
    may_pass, said = _meaning(error)
    return (Unavailable if may_pass else Misconfigured)(f"redis.url: {said}")


def said_of(error: RedisError | OSError) -> str:
    """Return the sentence of `failure` without the setting."""
    return _meaning(error)[1]


def what_redis_does(error: RedisError | OSError) -> str:
    """Begin a line of the log: one that answered, and be it with a refusal, is not away."""
    has_answered = isinstance(error, (ResponseError, AuthenticationError, AuthorizationError, BusyLoadingError))
    return "redis refuses" if has_answered else "redis does not answer"


def _meaning(error: RedisError | OSError) -> tuple[bool, str]:
    """Say whether a failure may pass, and what Redis did: it may have answered, and answered no."""
    said = _quoted(error)
    match error:
        case AuthenticationError() | AuthorizationError():
            return False, f"Redis does not let this user in: check the user and the password ({said})"
        case ResponseError() if isinstance(error, NoPermissionError) or said.startswith("ACL failure in script"):
            return False, f"the ACL of this user in Redis lacks a right: {RIGHTS} ({said})"
        case MasterDownError():
            return True, f"Redis is a replica that has lost its primary ({said})"
        case MovedError() | AskError() | ClusterCrossSlotError() | ClusterDownError():
            return False, f"this is a node of a Redis Cluster, which is not supported: name a single Redis ({said})"
        case OutOfMemoryError():
            return True, f"Redis is full and takes nothing more: raise maxmemory, or let it evict what expires ({said})"
        case ReadOnlyError():
            return True, f"this Redis is a replica and cannot be written to: name the primary ({said})"
        case BusyLoadingError():
            return True, f"Redis is still loading its data ({said})"
        case ResponseError() if said.partition(" ")[0] in PASSING_WORDS:
            return True, f"Redis answers that it cannot do this now ({said})"
        case ResponseError():
            return False, f"Redis refuses a command ({said})"
    if _is_tls_refusal(error):
        return (
            False,
            f"no TLS connection to Redis can be made: check the certificates, and rediss:// or redis:// ({said})",
        )
    return True, f"no Redis answers there ({said})"


def _quoted(error: BaseException) -> str:
    """Return what was said, without the arguments of the command: an old Redis repeats those of a login."""
    return str(error).partition(", with args beginning with")[0]


def _is_tls_refusal(error: BaseException | None) -> bool:
    """Whether a certificate is not accepted, or one side does not speak TLS. A connection that was closed may pass."""
    while error is not None:
        if isinstance(error, SSLError) and not isinstance(error, (SSLEOFError, SSLZeroReturnError)):
            return True
        error = error.__cause__ or error.__context__
    return False


class _Packing:
    """Packs by hiredis, as redis-py's other client does: a micro-batch in a fifth of the time."""

    def pack_command(self, name: str, *arguments: Any) -> list[bytes]:
        """Pack one command. A name of two words is two parts."""
        return [hiredis.pack_command((*name.split(), *arguments))]
