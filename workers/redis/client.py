"""The worker's connection to Redis: redis-py, with commands of a thousand parts packed in C."""

from __future__ import annotations

from ssl import SSLEOFError, SSLError, SSLZeroReturnError
from typing import Any

import hiredis
from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from workers.errors import Misconfigured, Unavailable
from workers.settings import Redis as RedisSettings


async def connect(settings: RedisSettings) -> Redis:
    """Connect, and check that Redis answers. No command waits for longer than `timeout_s`.

    Raises:
        Unavailable: it does not answer, or is loading its data.
        Misconfigured: it refuses this client, or the other way round.
    """
    redis = Redis.from_url(
        settings.url.get_secret_value(),
        socket_timeout=settings.timeout_s,
        socket_connect_timeout=settings.timeout_s,
    )
    # With TLS or a socket file the URL chooses the class of connections.
    pool = redis.connection_pool
    pool.connection_class = type("PackingConnection", (_Packing, pool.connection_class), {})
    try:
        await redis.ping()
    except (RedisError, OSError) as error:
        await redis.aclose()
        raise failure(error) from error
    return redis


PASSING = (ClusterDownError, OutOfMemoryError, ReadOnlyError)
"""What Redis answers with an error, and would answer otherwise a moment later."""

PASSING_WORDS = ("BUSY", "MASTERDOWN", "MISCONF", "NOREPLICAS", "TRYAGAIN")
"""The same, by the first word of errors that have no class of their own."""


def failure(error: RedisError | OSError) -> Unavailable | Misconfigured:
    """Say whether a failure of Redis may pass. The sentence names the setting."""
    if isinstance(error, (AuthenticationError, AuthorizationError)):
        return Misconfigured(f"redis.url: Redis does not let this user in ({error})")
    if _is_tls_refusal(error):
        return Misconfigured(f"redis.url: no TLS connection can be made ({error})")
    if isinstance(error, ResponseError) and not (
        isinstance(error, PASSING) or str(error).partition(" ")[0] in PASSING_WORDS
    ):
        return Misconfigured(f"redis.url: Redis refuses a command ({error})")
    return Unavailable(f"redis.url: no Redis answers there ({error})")


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
