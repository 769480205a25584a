"""Makes the HTTP calls of one endpoint. It never follows a redirect, and never reads more of an answer than it needs.

No sentence of this file holds the URL, whose path may be a secret, or anything of an answer.
"""

from __future__ import annotations

import asyncio
import ssl
from importlib.metadata import version
from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from workers.actions.addresses import RefusedAddressError, Sockets
from workers.actions.delivery import Answer, Call
from workers.errors import Misconfigured, Unavailable
from workers.settings.action_sections import Endpoint

KEEP_S = 4.0
"""How long an idle connection is kept. Many servers close theirs after 5 s, and a call would meet the closed one."""

RESOLVED_S = 10
"""How long the addresses of a name are used before it is resolved again."""


class Client:
    """Makes calls to one endpoint: each connects only to addresses that the settings permit.

    Use it within `async with`, in the event loop that makes the calls.

    Raises:
        Misconfigured: a file for TLS cannot be used.
    """

    def __init__(self, endpoint: Endpoint, answer_bytes: int) -> None:
        self._endpoint = endpoint
        self._answer_bytes = answer_bytes
        self._url = URL(endpoint.url.get_secret_value(), encoded=True)
        self._timeout = aiohttp.ClientTimeout(total=endpoint.timeout_s)
        self._tls = _tls(endpoint)
        self._agent = {"User-Agent": f"Guardline/{version('guardline')}", "Accept-Encoding": "identity"}

    async def __aenter__(self) -> Self:
        """Make the session."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._endpoint.concurrency,
                ssl=self._tls,
                ttl_dns_cache=RESOLVED_S,
                keepalive_timeout=KEEP_S,
                socket_factory=Sockets(self._endpoint.allow_networks),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers=self._agent,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def send(self, call: Call) -> Answer:
        """Make one call, and return its answer. The whole takes at most `timeout_s`.

        Raises:
            Unavailable: there was no answer. The sentence says why.
        """
        url = self._url.joinpath(call.path, encoded=True) if call.path else self._url
        answer: aiohttp.ClientResponse | None = None
        body = bytearray()
        try:
            async with self._session.request(
                call.method, url, data=call.body, headers=call.headers, allow_redirects=False, timeout=self._timeout
            ) as answer:
                is_whole = await self._read(answer, body)
        except (aiohttp.ClientError, TimeoutError, OSError, asyncio.IncompleteReadError, UnicodeError) as error:
            if answer is None:
                raise Unavailable(self._why(error)) from None
            is_whole = False  # The status came, and the body did not.
        return Answer(answer.status, bytes(body), is_whole, answer.headers.get("Retry-After"))

    async def _read(self, answer: aiohttp.ClientResponse, body: bytearray) -> bool:
        """Read up to `answer_bytes` of the body, and return whether that is all of it."""
        while chunk := await answer.content.read(self._answer_bytes + 1 - len(body)):
            body += chunk
            if len(body) > self._answer_bytes:
                del body[self._answer_bytes :]
                answer.close()  # Nobody reads the rest, so the connection cannot be used again.
                return False
        return True

    def _why(self, error: Exception) -> str:
        cause = getattr(error, "os_error", error)
        if isinstance(cause, RefusedAddressError):
            return f"the endpoint is not called: {cause}"
        match error:
            case TimeoutError():
                return f"no answer within timeout_s ({self._endpoint.timeout_s:g} s)"
            case aiohttp.ClientConnectorDNSError() | UnicodeError():
                return f"the name {self._url.host} cannot be resolved"
            case aiohttp.ClientConnectorCertificateError():
                return f"the certificate is not valid ({_said(error.certificate_error)}); ca_file names your authority"
            case aiohttp.ClientSSLError():
                return f"no TLS connection ({_said(cause)})"
            case aiohttp.ClientConnectorError():
                return f"no connection ({_said(cause)})"
            case aiohttp.ClientResponseError():
                return "the answer is not HTTP"
            case _:
                return "the connection ended before an answer"


def _said(cause: Exception) -> str:
    """Return what a cause says of itself, without addresses."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return cause.verify_message
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror.partition(" [")[0]
    return type(cause).__name__


def _tls(endpoint: Endpoint) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if endpoint.ca_file is None else str(endpoint.ca_file))
    except (OSError, ssl.SSLError) as error:
        raise Misconfigured(
            f"actions.endpoints, {endpoint.name}: ca_file: cannot read {endpoint.ca_file}: {_said(error)}"
        ) from None
    if endpoint.cert_file is not None:
        try:
            context.load_cert_chain(endpoint.cert_file, endpoint.key_file)
        except (OSError, ssl.SSLError) as error:
            raise Misconfigured(
                f"actions.endpoints, {endpoint.name}: cert_file and key_file: cannot use {endpoint.cert_file}: "
                f"{_said(error)}"
            ) from None
    return context
