"""Takes `redis.url` apart: one Redis, Sentinels that know its primary, or the nodes of a cluster.

Everything behind it works with plain URLs, one for each host. No sentence may quote a piece of the URL.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode

from workers.settings.urls import PERCENT, check_scheme, split

SENTINEL_PORT = 26_379

EXAMPLES = {
    "sentinel": "redis+sentinel://sentinel-1:26379,sentinel-2:26379/mymaster/0",
    "cluster": "redis+cluster://node-1:6379,node-2:6379",
}

EXAMPLE = "redis://localhost:6379/0"

SCHEMES = ("redis", "rediss", "unix", *(f"{plain}+{kind}" for kind in EXAMPLES for plain in ("redis", "rediss")))

_OF_SENTINELS = "sentinel_"
"""The beginning of the options that only Sentinels get: `sentinel_username` and `sentinel_password`."""


@dataclass(frozen=True)
class RedisServers:
    """Where Redis is.

    Attributes:
        kind: how the servers work together.
        urls: a plain URL for each host, with the same user, password and options in all of them.
        primary: the name by which the Sentinels know the primary.
        sentinel_login: user and password of the Sentinels, as redis-py calls them.
    """

    kind: Literal["single", "sentinel", "cluster"]
    urls: tuple[str, ...]
    primary: str = ""
    sentinel_login: tuple[tuple[str, str], ...] = ()


def servers_of(url: str) -> RedisServers:
    """Take a URL apart. It does not check the parts that are in each of the plain URLs.

    Raises:
        ValueError: with a sentence that quotes nothing of it.
    """
    scheme, _, rest = url.partition("://")
    plain, _, kind = scheme.lower().partition("+")
    if plain not in ("redis", "rediss") or kind not in ("sentinel", "cluster"):
        return RedisServers("single", (url,))
    before_options, _, query = rest.partition("?")
    authority, _, path = before_options.partition("/")
    if "#" in rest or "@" in path + query or authority.count("@") > 1:
        raise ValueError(f"has a `#`, or an `@` that is not the one before the hosts; {PERCENT}")
    user, at, hosts = authority.rpartition("@")
    names = hosts.split(",")
    if not all(names):
        raise ValueError(f"names no host, or an empty one, as in {EXAMPLES[kind]}")
    options = parse_qsl(query, keep_blank_values=True)
    own = urlencode([option for option in options if not option[0].startswith(_OF_SENTINELS)])
    primary, _, database = path.partition("/") if kind == "sentinel" else ("", "", path)
    if kind == "sentinel":
        if not primary:
            raise ValueError(f"does not name the primary after the hosts, as in {EXAMPLES[kind]}")
        names = [name if _has_port(name) else f"{name}:{SENTINEL_PORT}" for name in names]
    elif database not in ("", "0"):
        raise ValueError(f"names a database, and a cluster has only one: leave it out, as in {EXAMPLES[kind]}")
    urls = tuple(f"{plain}://{user}{at}{name}/{database}{'?' if own else ''}{own}" for name in names)
    login = tuple(
        (name.removeprefix(_OF_SENTINELS), value) for name, value in options if name.startswith(_OF_SENTINELS)
    )
    if not {name for name, _ in login} <= ({"username", "password"} if kind == "sentinel" else set()):
        raise ValueError("has an option for Sentinels other than sentinel_username and sentinel_password")
    return RedisServers("sentinel" if kind == "sentinel" else "cluster", urls, primary, login)


def _has_port(host: str) -> bool:
    return ":" in host.rpartition("]")[2]


def options_of(url: str) -> dict[str, Any]:
    """Return the options of a plain URL as redis-py reads them, with `ssl` in the place of a class of connections.

    Raises:
        ValueError: an option has a value that it cannot have.
    """
    from redis.asyncio.connection import SSLConnection, parse_url

    options: dict[str, Any] = {**parse_url(url)}
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    return {"host": "localhost", "port": 6379, **options}


def check(url: str) -> None:
    """Check a URL of Redis as the client reads it.

    Raises:
        ValueError: with a sentence that quotes nothing of it.
    """
    check_scheme(url, SCHEMES, EXAMPLE)
    servers = servers_of(url)
    for plain in servers.urls:
        _check_plain(plain, is_cluster=servers.kind == "cluster")


def _check_plain(url: str, *, is_cluster: bool) -> None:
    from redis.asyncio import ConnectionPool, RedisCluster  # It takes a quarter of a second, and few commands need it.

    parts = split(url, ("redis", "rediss", "unix"), EXAMPLE)
    if parts.scheme != "unix" and not re.fullmatch(r"/?|/[0-9]+", parts.path):
        raise ValueError(f"ends in what is not the number of a database, as in {EXAMPLE}")
    if re.search(r"(^|&)ssl=", parts.query):
        raise ValueError("takes no option `ssl`: a URL with TLS begins with rediss://, as in rediss://localhost:6379/0")
    if re.search(r"(^|&)(decode_responses|encoding|encoding_errors)=", parts.query):
        raise ValueError("must not say how answers are decoded: leave that option out")
    try:
        pool = ConnectionPool.from_url(url)
        pool.make_connection()  # type: ignore[no-untyped-call]  # the library's own; connects nothing
        if is_cluster:
            inspect.signature(RedisCluster.__init__).bind(None, **options_of(url))
    except Exception:
        # Whatever redis-py raises, of whatever kind: its sentences quote pieces of the URL.
        raise ValueError(
            "has an option after the `?` that a connection to Redis does not have, or a value that it cannot have"
        ) from None
