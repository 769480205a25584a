"""Calls the model server. Its answers are read within time-outs and sizes; its errors become the client's.

Guarantee: no header of a client reaches the model server, and none of the model server a client, but those named here.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

from workers.errors import Misconfigured, to_install
from workers.gateway.faults import BadUpstream, upstream_ended, upstream_timeout
from workers.gateway.parts import Json
from workers.gateway.problems import Problem
from workers.gateway.sse import compact
from workers.settings import secret_files
from workers.settings.upstream_sections import Upstream

if TYPE_CHECKING:
    import httpx

TO_UPSTREAM = (
    "openai-organization",
    "openai-project",
    "openai-beta",
    "x-request-id",
    "x-client-request-id",
    "x-session-id",
    "traceparent",
    "tracestate",
)
TO_CLIENT = (
    "x-request-id",
    "openai-processing-ms",
    "openai-version",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
)
TO_CLIENT_PREFIX = "x-ratelimit-"
MAX_ERROR_BYTES = 65_536
MAX_MESSAGE_CHARS = 1_000
"""How much of the message of an error a client gets."""
WORD = re.compile(r"[A-Za-z0-9_.:/\[\]-]{1,128}")
"""A code, a type or a parameter of an error."""


class Refused(Problem):
    """The model server refuses a request, with a message of its own.

    Some servers quote the answer in it that they could not finish, such as a call of a tool that is no JSON. So the
    client gets the message only after the guard has judged it.
    """

    def __init__(self, found: Problem, message: str) -> None:
        super().__init__(found.status, "the model server refuses the request", kind=found.body.type)
        self.body.code, self.body.param = found.body.code, found.body.param
        self._message = message[:MAX_MESSAGE_CHARS]

    async def judge(self, permits: Callable[[str], Awaitable[bool]]) -> None:
        """Take the message if it is permitted."""
        if await permits(self._message):
            self.body.message = self._message


class ModelServer:
    """The model server behind the proxy, and the connections to it."""

    def __init__(self, settings: Upstream) -> None:
        """Read the key, and connect at the first call.

        Raises:
            Misconfigured: httpx is not installed, or the file of the key cannot be read.
        """
        try:
            import httpx
        except ImportError:
            raise Misconfigured(f"the gateway needs httpx: {to_install('gateway')}") from None
        assert settings.url
        self._settings = settings
        self._passed = (*TO_UPSTREAM, "authorization") if settings.pass_authorization else TO_UPSTREAM
        self._key: str | None = None
        if settings.key_file is not None:
            try:
                self._key = secret_files.read(settings.key_file).strip()
            except ValueError as error:
                raise Misconfigured(f"gateway.upstream.key_file: {error}") from None
        self._client = httpx.AsyncClient(
            base_url=settings.url,
            timeout=httpx.Timeout(settings.connect_s, read=None, write=settings.first_byte_s),
            limits=httpx.Limits(max_connections=settings.max_connections, max_keepalive_connections=64),
            # A cookie of the model server would go from one tenant to the next.
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
            trust_env=False,
            follow_redirects=False,
            verify=_authorities(settings),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def stream(self, path: str, body: Json, headers: Mapping[str, str]) -> httpx.Response:
        """Ask for a stream, and give it once it has begun. Close it.

        Raises:
            Problem: the model server is not reached in time, or refuses.
        """
        response = await self._send("POST", path, headers, body, self._settings.first_byte_s)
        try:
            await self._check(response, "text/event-stream")
        except BaseException:
            await response.aclose()
            raise
        return response

    async def json(self, method: str, path: str, body: Json | None, headers: Mapping[str, str]) -> Answered:
        """Ask for a whole answer.

        Raises:
            Problem: the model server does not answer in time, or refuses.
        """
        settings = self._settings
        try:
            async with asyncio.timeout(settings.answer_s):
                response = await self._send(method, path, headers, body, settings.answer_s)
                try:
                    await self._check(response, "application/json")
                    content = await _read(response, settings.max_answer_bytes)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise upstream_timeout("answer", settings.answer_s, "answer_s") from None
        if content is None:
            raise BadUpstream(f"it has more than {settings.max_answer_bytes} bytes (gateway.upstream.max_answer_bytes)")
        return Answered(_object(response, content), to_client(response.headers))

    async def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """Give the bytes of a stream as they come.

        Raises:
            Problem: the model server hangs, or closes the connection before the end.
        """
        import httpx

        between_s = self._settings.between_chunks_s
        arriving = response.aiter_bytes()
        while True:
            try:
                async with asyncio.timeout(between_s):
                    data = await anext(arriving)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise upstream_timeout("further part of its answer", between_s, "between_chunks_s") from None
            except (httpx.HTTPError, httpx.StreamError) as error:
                raise upstream_ended(type(error).__name__) from None
            yield data

    async def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: Json | None, wait_s: float
    ) -> httpx.Response:
        import httpx

        # httpx writes headers in ASCII.
        sent = {name: value for name in self._passed if (value := headers.get(name)) is not None and value.isascii()}
        sent["accept-encoding"] = "identity"
        if self._key is not None:
            sent["authorization"] = f"Bearer {self._key}"
        content = None
        if body is not None:
            sent["content-type"] = "application/json"
            content = compact(body)
        try:
            async with asyncio.timeout(wait_s):
                request = self._client.build_request(method, path, headers=sent, content=content)
                return await self._client.send(request, stream=True)
        except TimeoutError:
            raise upstream_timeout("answer", wait_s, "first_byte_s") from None
        except httpx.PoolTimeout:
            raise Problem(
                503, "the gateway has reached gateway.upstream.max_connections", code="overloaded", retry_after_s=1
            ) from None
        except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
            raise Problem(
                502,
                f"the model server cannot be reached (gateway.upstream.url): {type(error).__name__}",
                code="upstream_unavailable",
            ) from None

    async def _check(self, response: httpx.Response, kind: str) -> None:
        if response.status_code == 200:
            found = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if found != kind:
                raise BadUpstream(f"its type is not {kind}")
            return
        if response.status_code in (401, 403) and not self._settings.pass_authorization:
            # The key of the client is not at fault: the model server has not seen it.
            refused = "a request without a key: set" if self._key is None else "the key of"
            raise Problem(
                502, f"the model server refuses {refused} gateway.upstream.key_file", code="upstream_unauthorized"
            )
        if not 400 <= response.status_code < 600:
            raise BadUpstream(f"its status is {response.status_code}")
        try:
            async with asyncio.timeout(self._settings.between_chunks_s):
                content = await _read(response, MAX_ERROR_BYTES)
        except TimeoutError:
            content = None
        raise _refusal(response, content)


def _authorities(settings: Upstream) -> ssl.SSLContext | bool:
    if settings.url.startswith("http://"):
        return False  # There is no certificate to verify, and reading the authorities takes 30 ms.
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise Misconfigured(f"gateway.upstream.ca_file: {error}") from None


class Answered:
    """A whole answer of the model server."""

    def __init__(self, body: Json, headers: dict[str, str]) -> None:
        self.body = body
        self.headers = headers


def to_client(headers: Mapping[str, str]) -> dict[str, str]:
    """Give the headers of the model server that a client may see."""
    return {
        name.lower(): value
        for name, value in headers.items()
        if name.lower() in TO_CLIENT or name.lower().startswith(TO_CLIENT_PREFIX)
    }


async def _read(response: httpx.Response, max_bytes: int) -> bytes | None:
    """Read a body; None if it is too large.

    Raises:
        Problem: the connection closed.
    """
    import httpx

    content = bytearray()
    try:
        async for data in response.aiter_bytes():
            content += data
            if len(content) > max_bytes:
                return None
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise upstream_ended(type(error).__name__) from None
    return bytes(content)


def _refusal(response: httpx.Response, content: bytes | None) -> Problem:
    """Give the model server's error with its own status, as far as it has the form of one."""
    try:
        found: Any = json.loads(content or b"")
    except (ValueError, RecursionError):
        found = None
    error = found.get("error", found) if isinstance(found, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    problem = upstream_failed(response.status_code, error)
    if response.status_code < 500 and isinstance(message, str) and message:
        problem = Refused(problem, message)
    problem.headers.update(to_client(response.headers))
    return problem


def upstream_failed(status: int, error: object) -> Problem:
    """Give the model server's error without its message, which may quote the answer: nobody has judged it."""
    code, kind, param = (_word(error, name) for name in ("code", "type", "param"))
    return Problem(status, "the model server failed", code=code, kind=kind, param=param)


def _word(error: object, name: str) -> str | None:
    value = error.get(name) if isinstance(error, dict) else None
    return str(value) if isinstance(value, (str, int)) and WORD.fullmatch(str(value)) else None


def _object(response: httpx.Response, content: bytes) -> Json:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise BadUpstream("it is not JSON") from None
    if not isinstance(value, dict):
        raise BadUpstream("it is not an object")
    return value


def choices_of(chunk: Json, count: int) -> Iterable[tuple[int, Json]]:
    """Give the choices of a chunk or an answer with their indices, which are below `count`.

    Raises:
        BadUpstream: it has none, or one that was not asked for.
    """
    found = chunk.get("choices")
    if not isinstance(found, list):
        raise BadUpstream("it has no choices")
    for choice in found:
        index = choice.get("index", 0) if isinstance(choice, dict) else None
        if type(index) is not int or not 0 <= index < count:
            raise BadUpstream(f"it has a choice with an index outside 0 to {count - 1}")
        yield index, choice
