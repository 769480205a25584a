"""Real calls over sockets, to servers that behave in every way that a receiver may."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import SecretStr

from tests.unit.actions.deliveries import endpoint
from workers.actions.client import Client
from workers.actions.delivery import Answer, Call
from workers.errors import Misconfigured, Unavailable

LOCAL = ["127.0.0.0/8", "::1/128"]
CALL = Call(b'{"n":1}', {"webhook-id": "1"})

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve connections by a function while the block runs, and yield the port."""
    connections: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


def answering(*parts: bytes, wait_s: float = 0.0) -> Serve:
    """Answer each request with these bytes, with a wait before each further part."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")
            )
            await reader.readexactly(length)
            for number, part in enumerate(parts):
                if number:
                    await asyncio.sleep(wait_s)
                writer.write(part)
                await writer.drain()

    return serve


async def sent(port: int, *, scheme: str = "http", host: str = "127.0.0.1", **changes: Any) -> Answer:
    changes = {"allow_networks": LOCAL, **changes}
    async with Client(endpoint(f"{scheme}://{host}:{port}/hook?x=1", **changes), 4_096) as client:
        return await client.send(CALL)


async def test_a_call_has_its_body_and_headers_and_those_of_the_settings() -> None:
    seen = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.extend(await reader.readuntil(b'{"n":1}'))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        await reader.read()

    async with serving(serve) as port:
        assert await sent(port) == Answer(204)
    assert seen.startswith(b"POST /hook?x=1 HTTP/1.1\r\n")
    assert b"webhook-id: 1\r\n" in seen
    assert b"User-Agent: Guardline/" in seen


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n\xff\x00{]"], Answer(200, b"\xff\x00{]")),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n" + b"x" * 9_999], Answer(200, b"x" * 4_096, False)),
        (
            [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nnogzp"],
            Answer(200, b"nogzp"),
        ),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"zz\r\n"], Answer(200, b"", False)),
        (
            [b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"],
            Answer(429, b"", True, "7"),
        ),
        (
            [b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\n\r\n"],
            Answer(302),
        ),
    ],
    ids=["garbage", "too much", "a false encoding", "a broken body", "a limit", "a redirect"],
)
async def test_an_answer_is_its_status_and_the_beginning_of_its_body(parts: list[bytes], expected: Answer) -> None:
    async with serving(answering(*parts, wait_s=0.1)) as port:
        assert await sent(port, timeout_s=30 if expected.is_whole else 2) == expected


async def test_a_body_that_comes_drop_by_drop_ends_with_the_timeout_and_its_status_counts() -> None:
    drops = [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *[b"x"] * 1_000]
    async with serving(answering(*drops, wait_s=0.05)) as port:
        began = time.monotonic()
        answer = await sent(port, timeout_s=1.5)
    assert (answer.status, answer.is_whole) == (200, False)
    assert time.monotonic() - began < 10


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    await asyncio.sleep(3_600)


async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP\r\n")
    await reader.read(1)


@pytest.mark.parametrize(
    ("serve", "sentence"),
    [
        (never, "no answer within timeout_s (0.5 s)"),
        (answering(b"HTTP/1.1 2", b"00", wait_s=3_600), "no answer within timeout_s (0.5 s)"),
        (at_once, "the connection ended before an answer"),
        (answering(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "the answer is not HTTP"),
        (answering(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"), "the answer is not HTTP"),
    ],
    ids=["hangs", "hangs in the status", "closes", "is another protocol", "endless headers"],
)
async def test_without_an_answer_the_sentence_says_why(serve: Serve, sentence: str) -> None:
    async with serving(serve) as port:
        with pytest.raises(Unavailable) as failed:
            await sent(port, timeout_s=0.5 if "0.5 s" in sentence else 30)
    assert str(failed.value) == sentence


async def test_an_address_that_is_not_public_is_not_called_whatever_name_leads_to_it() -> None:
    calls = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1

    async with serving(serve) as port:
        for host in ("127.0.0.1", "localhost", "0x7f000001", "[::ffff:127.0.0.1]", "0.0.0.0"):
            with pytest.raises(Unavailable, match=r"an address that is not public; .* allow_networks"):
                await sent(port, host=host, allow_networks=["10.0.0.0/8"])
    assert calls == 0


async def test_a_name_is_checked_again_at_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server gives a permitted address first and an internal one later: the second one is not called."""
    addresses = ["127.0.0.1", "127.0.0.2"]

    async def getaddrinfo(*_: object, **__: object) -> list[Any]:
        return [(2, 1, 6, "", (addresses.pop(0), port))]

    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    monkeypatch.setattr("workers.actions.client.RESOLVED_S", 0)
    async with serving(answering(answer)) as port:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        changed = endpoint(f"http://rebinding.example:{port}/", allow_networks=["127.0.0.1/32"])
        async with Client(changed, 10) as client:
            assert (await client.send(CALL)).status == 200
            with pytest.raises(Unavailable, match="not public"):
                await client.send(CALL)
    assert addresses == []


async def test_a_name_that_does_not_resolve_and_a_port_that_is_closed_are_named() -> None:
    with pytest.raises(Unavailable, match=r"^the name no-such-host\.invalid cannot be resolved$"):
        await sent(80, host="no-such-host.invalid")
    async with serving(never) as port:
        pass
    with pytest.raises(Unavailable, match=r"^no connection \(Connect call failed"):
        await sent(port)


async def test_a_certificate_of_an_unknown_authority_is_refused_and_ca_file_permits_it(tmp_path: Path) -> None:
    authority = trustme.CA()
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server_tls)
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with serving(answering(ok), server_tls) as port:
        with pytest.raises(Unavailable, match=r"^the certificate is not valid \(.*\); ca_file names your authority$"):
            await sent(port, scheme="https")
        assert (await sent(port, scheme="https", ca_file=str(file))).status == 200
    async with serving(greeting) as port:
        with pytest.raises(Unavailable, match=r"^no TLS connection \("):
            await sent(port, scheme="https")


def test_a_file_for_tls_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("not a certificate")
    for name in ("ca_file", "cert_file"):
        with pytest.raises(Misconfigured, match=rf"^actions\.endpoints, platform: {name}"):
            Client(endpoint(**{name: str(tmp_path / "no.pem")}), 10)
        with pytest.raises(Misconfigured, match=rf"^actions\.endpoints, platform: {name}"):
            Client(endpoint(**{name: str(tmp_path / "missing.pem")}), 10)


@pytest.mark.parametrize("host", ["a..b", f"{'a' * 64}.example"])
async def test_a_host_that_is_no_name_cannot_be_resolved_and_raises_no_other_error(host: str) -> None:
    one = endpoint().model_copy(update={"url": SecretStr(f"https://{host}/")})  # The settings refuse it.
    async with Client(one, 100) as client:
        with pytest.raises(Unavailable, match="cannot be resolved"):
            await client.send(CALL)
