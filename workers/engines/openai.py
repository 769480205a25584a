"""Servers of vLLM or SGLang, over HTTP: several at a time, each with a circuit breaker."""

from __future__ import annotations

import asyncio
import math
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from workers import telemetry
from workers.engines.engine import CLOSED, Refused, answer_valid
from workers.engines.openai_protocol import KeyRefused
from workers.engines.openai_server import Expected, Server
from workers.errors import Fatal, Misconfigured, Unavailable, Unjudgeable, to_install

log = structlog.get_logger(__name__)

Row = TypeVar("Row")
AskServer = Callable[[Server, Sequence[Sequence[int]]], Awaitable[Sequence[Row | Refused]]]

PROMPTS_A_REQUEST = 32
"""One bad prompt fails a whole request, and one request runs on one server."""

ATTEMPTS = 3
"""Each on another server as long as there is one, and none past the deadline of who asked."""

HEALTH_S = 2.0
"""How often each server is looked at: one in use, whether it serves the same; one left alone, whether it is well."""

CLOSE_S = 0.5
"""How long a look at a server may still take when the engine closes."""

IDLE_S = 3.0
"""After which a connection is not used again. The servers close theirs after 5: met at that moment, it would look as if
the server had gone."""


class OpenAIEngine:
    """The same model behind one URL or more.

    Nothing is sent to a server before it was checked: that it serves the model, with the same tokenizer, and gives the
    log-probabilities of chosen tokens. One that fails is left alone until it passes the checks again, and the others
    answer for it.
    """

    prompts_at_a_time = None
    """The servers may be shared, and queue what they are sent."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        model: str | None = None,
        tokenized: Mapping[str, Sequence[int]],
        vocabulary: int,
        context_tokens: int = 2048,
        api_key: str = "",
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
        timeout_s: float,
    ) -> None:
        if not urls:
            raise Misconfigured("guard.openai.urls: name at least one server, as in [http://vllm:8000]")
        self._urls = list(urls)
        self._expected = Expected(model, context_tokens, dict(tokenized))
        self._vocabulary = vocabulary
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._ca_file = ca_file
        self._cert_file = cert_file
        self._key_file = key_file
        self._timeout_s = timeout_s
        self._client: Any = None
        self.answered = 0
        """See `Engine.answered`."""
        self._servers: list[Server] = []
        self._mending: list[asyncio.Task[None]] = []
        self._is_closing = asyncio.Event()

    @property
    def identity(self) -> str:
        """The weights that the servers said they serve."""
        return f"servers {sorted(self._expected.weights)}"

    async def start(self, shared_tokens: int = 0) -> None:
        """Check the servers; one that is well is enough. After a failure it may be called again.

        Raises:
            Misconfigured: the extra is not installed, or each server serves something else or refuses our key.
            Unavailable: none is well, and one at least may come to be.
        """
        if self._client is not None:
            return
        try:
            import httpx
        except ImportError as error:
            raise Misconfigured(f"guard.engine: 'openai' needs the extra: {to_install('openai')} ({error})") from error
        client = httpx.AsyncClient(
            verify=self._tls(),
            headers=self._headers,
            timeout=None,  # noqa: S113  httpx's counts from one byte to the next; `Server` has one for the whole
            limits=httpx.Limits(max_connections=None, keepalive_expiry=IDLE_S),
        )
        self._expected.weights.clear()
        servers = [Server(url, client, self._expected, self._timeout_s) for url in self._urls]
        found = await asyncio.gather(*(server.check() for server in servers), return_exceptions=True)
        failures = [failure for failure in found if failure is not None]
        if len(failures) == len(servers):
            await client.aclose()
            raise _start_error(failures)
        for server, failure in zip(servers, found, strict=True):
            if isinstance(failure, Exception):
                server.leave_alone(failure)
            else:
                self._expected.weights.add(server.weights)
        self._client, self._servers = client, servers
        telemetry.OPEN_CIRCUITS.labels("model_servers").set_function(self._count_open)
        self._is_closing.clear()
        self._mending = [asyncio.create_task(self._mend(server)) for server in servers]

    def _count_open(self) -> int:
        return sum(server.trouble is not None for server in self._servers)

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:
            raise Misconfigured(f"guard.openai.ca_file: cannot read {self._ca_file}: {error}") from error
        if self._key_file is not None and self._cert_file is None:
            raise Misconfigured("guard.openai.key_file: without guard.openai.cert_file it has no use")
        if self._cert_file is not None:
            try:
                # An empty password: OpenSSL would ask for one on the terminal, and the worker would wait for ever.
                context.load_cert_chain(self._cert_file, self._key_file, password="")
            except OSError as error:
                raise Misconfigured(
                    f"guard.openai.cert_file: cannot read {self._cert_file} with key_file "
                    f"{self._key_file or self._cert_file} (a key with a password is not taken): {error}"
                ) from error
        return context

    async def close(self) -> None:
        """Close the connections. Blocks for `CLOSE_S` at most, where a server is being looked at and does not answer.

        A look that is cancelled while it connects would leave its socket open.
        """
        client, self._client = self._client, None
        self._is_closing.set()
        if self._mending:
            await asyncio.wait(self._mending, timeout=CLOSE_S)
        for task in self._mending:
            task.cancel()
        if client is not None:
            await client.aclose()

    async def watch(self) -> None:
        """See `Engine.watch`: servers come back, and a key that all refuse is found when they are asked."""

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = math.inf
    ) -> list[list[float] | Refused]:
        """See `Engine.score`."""
        return await self._answer(prompts, 1, deadline, lambda server, part: server.score(part, candidates))

    async def complete(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, deadline: float = math.inf
    ) -> list[list[int] | Refused]:
        """See `Engine.complete`."""
        return await self._answer(prompts, max_tokens, deadline, lambda server, part: server.complete(part, max_tokens))

    async def _answer(
        self, prompts: Sequence[Sequence[int]], asked_tokens: int, deadline: float, ask_server: AskServer[Row]
    ) -> list[Row | Refused]:
        """Ask in parts, and give the answers in the order of the prompts."""
        if self._client is None:
            raise Fatal("the engine is not running: it was not started, or is closed")

        async def answer(valid: Sequence[Sequence[int]]) -> list[Row | Refused]:
            parts = [valid[start : start + PROMPTS_A_REQUEST] for start in range(0, len(valid), PROMPTS_A_REQUEST)]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._ask(part, deadline, ask_server)) for part in parts]
            return [row for task in tasks for row in task.result()]

        try:
            return await answer_valid(
                prompts,
                answer,
                vocabulary=self._vocabulary,
                context_tokens=self._expected.context_tokens,
                asked_tokens=asked_tokens,
            )
        except ExceptionGroup as failed:
            if self._client is None:
                raise Fatal(CLOSED) from None
            raise failed.exceptions[0] from None

    async def _ask(
        self, part: Sequence[Sequence[int]], deadline: float, ask_server: AskServer[Row]
    ) -> list[Row | Refused]:
        """Ask in one request, and where a server refuses it, about each half: one bad prompt fails a whole request."""
        try:
            rows = [*await self._attempt(part, deadline, ask_server)]
        except Unjudgeable as refusal:
            if len(part) > 1:
                half = len(part) // 2
                return [
                    *await self._ask(part[:half], deadline, ask_server),
                    *await self._ask(part[half:], deadline, ask_server),
                ]
            rows = [Refused(refusal.reason, refusal.detail)]
        self.answered += len(part)
        return rows

    async def _attempt(
        self, part: Sequence[Sequence[int]], deadline: float, ask_server: AskServer[Row]
    ) -> Sequence[Row | Refused]:
        """Ask one server, and another one while that fails; raises what the last one did."""
        asked: list[Server] = []
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(Unavailable),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            stop=lambda state: state.attempt_number >= ATTEMPTS or time.monotonic() + state.upcoming_sleep >= deadline,
            reraise=True,
        ):
            with attempt:
                asked.append(self._next_after(asked))
                try:
                    return await ask_server(asked[-1], part)
                except Unavailable as error:
                    telemetry.FAILED_ATTEMPTS.labels("model_server").inc()
                    if isinstance(error, KeyRefused):
                        self._end_without_key()
                    raise
        raise AssertionError("unreachable")

    def _next_after(self, asked: Sequence[Server]) -> Server:
        """Return the server with the least to do, of those that were asked least often.

        One that hangs has nothing else to do: by that alone it would be asked again and again.
        """
        well = [server for server in self._servers if server.trouble is None]
        if not well:
            self._end_without_key()
            said = "; ".join(str(server.trouble) for server in self._servers)
            raise Unavailable(f"none of {len(self._servers)} servers is well: {said}")
        return min(well, key=lambda server: (asked.count(server), server.prompts_under_way))

    def _end_without_key(self) -> None:
        """Raise where no server takes our key: no wait heals that, and the setting is wrong for all of them."""
        troubles = [server.trouble for server in self._servers]
        if all(isinstance(trouble, KeyRefused) for trouble in troubles):
            raise Misconfigured(f"{troubles[0]}. All servers ({len(troubles)}) refuse the key")

    async def _mend(self, server: Server) -> None:
        """Look at a server again and again, until the engine closes."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_closing.wait(), HEALTH_S)
                return
            try:
                await (server.look() if server.trouble is None else server.check())
            except Exception as error:  # Whatever it answers, nobody else would ever find it well again.
                if server.trouble is None:
                    log.warning("a server failed", url=server.url, error=str(error))
                else:
                    server.leave_alone(error)


def _start_error(failures: Sequence[BaseException]) -> BaseException:
    """Say why no server is well, and whether waiting may heal that."""
    bugs = [failure for failure in failures if not isinstance(failure, (Unavailable, Misconfigured))]
    if bugs:
        return bugs[0]
    said = "; ".join(map(str, failures))
    if all(isinstance(failure, (Misconfigured, KeyRefused)) for failure in failures):
        return Misconfigured(said)
    return Unavailable(f"guard.openai.urls: {said}")
