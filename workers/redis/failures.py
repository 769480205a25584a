"""What a failure of Redis means: whether it may pass, and which setting or right is wrong."""

from __future__ import annotations

import re
from ssl import SSLEOFError, SSLError, SSLZeroReturnError

from redis.asyncio.sentinel import MasterNotFoundError
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

PASSING_WORDS = ("BUSY", "MISCONF", "NOREPLICAS", "TRYAGAIN")
"""What Redis answers with an error, and would answer otherwise a moment later: by the first word of the errors that
have no class of their own."""

_OF_SENTINEL = re.compile(r"> - (.*?)(?=, <|$)")

RIGHTS = "docs/operations.md lists what a worker needs"


def failure(error: RedisError | OSError) -> Unavailable | Misconfigured:
    """Say whether a failure of Redis may pass. The sentence names the setting."""
    may_pass, said = _meaning(error)
    return (Unavailable if may_pass else Misconfigured)(f"redis.url: {said}")


def said_of(error: RedisError | OSError) -> str:
    """Return the sentence of `failure` without the setting."""
    return _meaning(error)[1]


def what_redis_does(error: RedisError | OSError) -> str:
    """Begin a line of the log. A Redis that answers, even with a refusal, is reachable."""
    has_answered = isinstance(error, (ResponseError, AuthenticationError, AuthorizationError, BusyLoadingError))
    return "redis refuses" if has_answered else "redis does not answer"


def _meaning(error: RedisError | OSError) -> tuple[bool, str]:
    """Say whether a failure may pass, and what Redis did: it may have answered, and answered no."""
    said = _quoted(error)
    match error:
        case MasterNotFoundError() if "AuthenticationError" in said:
            return (
                False,
                f"the Sentinels do not let this user in: check sentinel_username and sentinel_password ({said})",
            )
        case AuthenticationError() | AuthorizationError():
            return False, f"Redis does not let this user in: check the user and the password ({said})"
        case ResponseError() if isinstance(error, NoPermissionError) or said.startswith("ACL failure in script"):
            return False, f"the ACL of this user in Redis lacks a right: {RIGHTS} ({said})"
        case MasterDownError():
            return True, f"Redis is a replica that has lost its primary ({said})"
        case MovedError() | AskError() | ClusterCrossSlotError() | ClusterDownError():
            return False, f"this is a node of a Redis Cluster: the URL has to begin with redis+cluster:// ({said})"
        case ResponseError() if "cluster support disabled" in said:
            return False, f"this Redis is not a cluster: the URL has to begin with redis:// ({said})"
        case ResponseError() if said.lower().startswith("unknown command 'sentinel'"):
            return False, f"this is a Redis and not a Sentinel: the URL has to begin with redis:// ({said})"
        case MasterNotFoundError():
            return True, f"the Sentinels name no primary that is up: check the name after the hosts ({said})"
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
    if isinstance(error, MasterNotFoundError):
        # Each Sentinel's error follows a description of its client.
        return ", ".join(_OF_SENTINEL.findall(str(error))) or "all of them answer"
    return str(error).partition(", with args beginning with")[0]


def _is_tls_refusal(error: BaseException | None) -> bool:
    """Whether a certificate is not accepted, or one side does not speak TLS. A connection that was closed may pass."""
    while error is not None:
        if isinstance(error, SSLError) and not isinstance(error, (SSLEOFError, SSLZeroReturnError)):
            return True
        error = error.__cause__ or error.__context__
    return False
