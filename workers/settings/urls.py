"""Checks addresses, and URLs that may hold a password. What is wrong with one is said without quoting any of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

MAX_PORT = 65_535

PERCENT = "in a user or password write `#` as %23, `/` as %2F, `:` as %3A, `?` as %3F, `@` as %40 and `%` as %25"

_BROKER = re.compile(
    r"((PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)://)?"
    r"([^\s:/\[\]]+(:(?P<port>[0-9]{1,5}))?|\[[0-9a-f:.%]+\](:(?P<port6>[0-9]{1,5}))?|[0-9a-f]*(:[0-9a-f]*){2,})",
    re.IGNORECASE,
)


def check_brokers(servers: str) -> None:
    """Check `kafka.bootstrap_servers`: librdkafka takes any port, and keeps its last 16 bits.

    Raises:
        ValueError: an address is not `HOST:PORT` or `HOST`.
    """
    # librdkafka skips what is empty, as after a comma at the end.
    addresses = [address for one in servers.split(",") if (address := one.strip())]
    for number, address in enumerate(addresses or [""], 1):
        found = _BROKER.fullmatch(address)
        if found is None or not 0 < int(found["port"] or found["port6"] or 9092) <= MAX_PORT:
            raise ValueError(
                f"kafka.bootstrap_servers: number {number} is not HOST:PORT with a port from 1 to {MAX_PORT}, as in "
                "kafka-1:9092,kafka-2:9092"
            )


def check_scheme(url: str, schemes: Sequence[str], example: str) -> None:
    """Check how a URL begins.

    Raises:
        ValueError: it begins with none of the schemes; the sentence lists them.
    """
    scheme, is_url, _ = url.partition("://")
    if not is_url or scheme.lower() not in schemes:
        *others, last = (f"{scheme}://" for scheme in schemes)
        raise ValueError(f"has to begin with {', '.join(others)} or {last}, as in {example}")


def split(url: str, schemes: Sequence[str], example: str) -> SplitResult:
    """Take a URL apart.

    Raises:
        ValueError: it is not one, or characters of its password make it another one than was meant.
    """
    check_scheme(url, schemes, example)
    parts = None
    try:
        parts = urlsplit(url)
        is_url = parts.port is None or parts.port >= 0
    except ValueError:
        is_url = False
    if parts is None or not is_url:
        has_port = parts is not None and re.fullmatch(r".*:[0-9]+", parts.netloc)
        if parts and has_port and not re.search("[#?@]", url.partition(parts.netloc)[2]):
            raise ValueError(f"has a port above {MAX_PORT}; if that is a part of a password: {PERCENT}")
        raise ValueError(f"is not a URL, as in {example}; {PERCENT}")
    # Whatever stands before the last @ was meant as the user and the password.
    if "#" in url or "@" in parts.path + parts.query or parts.netloc.count("@") > 1:
        raise ValueError(f"has a `#`, or an `@` that is not the one before the host; {PERCENT}")
    return parts


def check_server(url: str) -> None:
    """Check the URL of a model server.

    Raises:
        ValueError: with a sentence that quotes nothing of it.
    """
    parts = split(url, ("http", "https"), "http://vllm:8000")
    if not parts.hostname:
        raise ValueError("names no host, as in http://vllm:8000")
    if parts.query:
        raise ValueError("must not have a `?`, as in http://vllm:8000: paths are added to it")
