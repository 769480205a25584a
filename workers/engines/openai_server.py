"""One server of several: what it has to serve, how it fails, and when it is left alone."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from workers.engines.engine import Refused, all_or_refused
from workers.engines.openai_protocol import (
    BROKEN,
    AnotherModel,
    Doubtful,
    Json,
    KeyRefused,
    Served,
    ServerProtocol,
    message_in,
)
from workers.engines.openai_sglang import SglangProtocol
from workers.engines.openai_vllm import VllmProtocol
from workers.errors import Misconfigured, Unavailable, Unjudgeable
from workers.shown import without_passwords

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger(__name__)

Row = TypeVar("Row")

FAILURES_TO_OPEN = 3
"""Failures in a row after which a server is left alone until a health check finds it well again."""

REFUSES_PROMPT = (400, 413, 422)
MAYBE_REFUSES_PROMPT = 500
"""Or the server is broken. vLLM writes no NaN as JSON, and fails instead."""
REFUSES_US = (401, 403)
LACKS_PATH = (404, 405, 501)

SHOWN_CHARS = 200
"""Of what a server answered, in a sentence."""

PROTOCOLS: Mapping[str, ServerProtocol] = {"sglang": SglangProtocol(), "vllm": VllmProtocol()}
"""By what a server gives as the owner of its models. Any other one is asked as vLLM, and has to answer as vLLM does."""


class _Untrusted(Unavailable):
    """Its certificate is not one that we trust. At start a setting is wrong; later it may be mended."""


class _Lacking(Unavailable):
    """It has no such path. At start it is not a server of a kind that is supported, or a gateway hides the path."""


class _Gone(Unavailable):
    """No connection, or one that broke. Who answers next may have been started with something else."""


@dataclass(frozen=True)
class Expected:
    """What every server has to serve for its scores to mean anything here."""

    model: str | None
    """The name it serves the model by; None: its only one."""
    context_tokens: int
    tokenized: Mapping[str, Sequence[int]]
    """Texts, and their ids by the tokenizer that the prompts are made with."""
    weights: set[str] = field(default_factory=set)
    """What the servers served at the start; empty until then."""


class Server:
    """A server behind a URL, with its circuit breaker."""

    def __init__(self, url: str, client: httpx.AsyncClient, expected: Expected, timeout_s: float) -> None:
        self._url = url.rstrip("/").removesuffix("/v1")
        self.url = without_passwords(self._url)
        """As it is shown: a user and a password in it are masked."""
        self.prompts_under_way = 0
        """Prompts under way."""
        self.trouble: Exception | None = None
        """Why the circuit is open: nothing is sent until a health check closes it. None: it is well."""
        self.protocol: ServerProtocol = PROTOCOLS["vllm"]
        """How it is asked; known once it was checked."""
        self.model = ""
        """The name of the model in requests; known once it was checked."""
        self.weights = ""
        """Where its weights come from; known once it was checked."""
        self._client = client
        self._expected = expected
        self._timeout_s = timeout_s
        self._failures = 0

    async def check(self) -> None:
        """Check that it is well and serves what it has to, and close the circuit.

        Raises:
            Unavailable: it does not answer, is not ready, or refuses our key. Misconfigured: it serves something else.
        """
        protocol, name, served = await self._served(self._expected.tokenized)
        await self._check_candidates(protocol, name)
        self.protocol, self.model, self.weights = protocol, name, served.weights
        if self.trouble is not None:
            log.info("a server is back", url=self.url)
        self._failures, self.trouble = 0, None

    def leave_alone(self, trouble: Exception) -> None:
        """Open the circuit, and say why, once for each kind of trouble: a server is looked at every few seconds."""
        if type(trouble) is not type(self.trouble):
            log.warning("a server is left alone", url=self.url, error=str(trouble))
        self.trouble = trouble

    async def look(self) -> None:
        """See that it serves what it did when it was checked, and count it if not.

        Raises:
            Unavailable: it serves something else, or does not answer.
        """
        try:
            try:
                _, name, served = await self._served({})
            except Misconfigured as error:
                raise AnotherModel(str(error)) from error
            if (name, served.weights) != (self.model, self.weights):
                raise AnotherModel(f"guard.openai: {self.url} serves {name!r} with other weights: {served.weights}")
        except Unavailable as error:
            self._count(error)
            raise

    async def _served(self, tokenized: Mapping[str, Sequence[int]]) -> tuple[ServerProtocol, str, Served]:
        """Return the kind of server, the name of the model, and the model; check how it tokenizes some texts."""
        protocol = self.protocol
        told = "nothing was asked"

        async def ask(method: str, path: str, body: Json | None = None) -> Any:
            nonlocal told
            answer = await self._json(method, path, body)
            told = f"{method} {self.url}{path} answered {str(answer)[:SHOWN_CHARS]}"
            return answer

        try:
            models: list[Json] = list((await ask("GET", "/v1/models"))["data"])
            protocol = PROTOCOLS.get(str(models[0].get("owned_by")) if models else "", PROTOCOLS["vllm"])
            await self._request("GET", protocol.well_path)
            about = [await ask("GET", path) for path in protocol.about_paths]
            name, served = self._chosen(protocol.served(models, about))
            if served.room is not None and served.room < self._expected.context_tokens:
                raise Misconfigured(
                    f"guard.context_tokens: {self.url} takes {served.room} tokens, fewer than "
                    f"{self._expected.context_tokens}"
                )
            for text, ids in tokenized.items():
                body = {"model": name, "prompt": text, "add_special_tokens": False}
                if (answered := (await ask("POST", "/tokenize", body))["tokens"]) != list(ids):
                    raise Misconfigured(
                        f"guard.openai.urls: the tokenizer of {self.url} is not that of guard.model: asked for "
                        f"the tokens of {text!r}, it answered {str(answered)[:SHOWN_CHARS]} instead of {list(ids)}"
                    )
        except _Untrusted as error:
            raise Misconfigured(str(error)) from error
        except _Lacking as error:
            raise self._not_supported(str(error), protocol) from error
        except Unjudgeable as error:
            raise self._not_supported(error.detail, protocol) from error
        except BROKEN as error:
            raise self._not_supported(f"{told}, which lacks what {protocol.name} answers", protocol) from error
        if self._expected.weights and served.weights not in self._expected.weights:
            raise Misconfigured(
                f"guard.openai: {self.url} serves what no server did at the start: {served.weights}. If that is meant, "
                "restart the worker"
            )
        return protocol, name, served

    def _not_supported(self, said: str, protocol: ServerProtocol) -> Misconfigured:
        paths = ", ".join(("/v1/models", protocol.well_path, *protocol.about_paths, "/tokenize", protocol.ask_path))
        kinds = " and ".join(f"{kind.name} since {kind.since}" for kind in PROTOCOLS.values())
        return Misconfigured(
            f"guard.openai.urls: {said}. Supported are {kinds}. It was taken for {protocol.name}, of which "
            f"{paths} have to be reachable, also through a gateway"
        )

    def _chosen(self, served: Mapping[str, Served]) -> tuple[str, Served]:
        names = ", ".join(served) or "none"
        name = self._expected.model or (next(iter(served)) if len(served) == 1 else None)
        if name is None:
            raise Misconfigured(f"guard.openai.model: {self.url} serves {names}: say which one")
        if name not in served:
            raise Misconfigured(f"guard.openai.model: {self.url} does not serve {name!r} (it serves: {names})")
        return name, served[name]

    async def _check_candidates(self, protocol: ServerProtocol, model: str) -> None:
        """An older server answers with its own choice of tokens instead of those asked for."""
        prompt = next(iter(self._expected.tokenized.values()))
        candidates = sorted({index for ids in self._expected.tokenized.values() for index in ids})[:20]
        request = protocol.score_request(model, [prompt], candidates)
        try:
            answer = await self._json("POST", protocol.ask_path, request)
        except Unjudgeable as error:
            raise Misconfigured(f"guard.openai: {self.url} refuses a valid prompt: {error.detail}") from error
        except _Lacking as error:
            raise self._not_supported(str(error), protocol) from error
        try:
            rows = all_or_refused(protocol.scores_in(request, answer))
            if isinstance(rows, Refused):
                raise Unavailable(rows.detail)
        except (*BROKEN, Unavailable) as error:
            raise Misconfigured(
                f"guard.openai: {self.url} does not give the log-probabilities of chosen tokens, as {protocol.name} "
                f"does since {protocol.since}: {_said(error)}"
            ) from error

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int]
    ) -> Sequence[list[float] | Refused]:
        """Score the prompts in one request; raises as `_ask`."""
        protocol = self.protocol
        return await self._ask(
            lambda: protocol.score_request(self.model, prompts, candidates), protocol.scores_in, len(prompts)
        )

    async def complete(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> Sequence[list[int] | Refused]:
        """Complete the prompts in one request; raises as `_ask`."""
        protocol = self.protocol
        return await self._ask(
            lambda: protocol.complete_request(self.model, prompts, max_tokens), protocol.completions_in, len(prompts)
        )

    async def _ask(
        self, request: Callable[[], Json], read: Callable[[Json, object], Sequence[Row]], prompts: int
    ) -> Sequence[Row]:
        """Ask, read the answer, and count how it went.

        Raises:
            Unjudgeable: it refuses the request, for one of its prompts or more. Unavailable: worth another attempt.
        """
        self.prompts_under_way += prompts
        try:
            try:
                rows = await self._answer(request(), read)
                if any(isinstance(row, Refused) for row in rows):
                    # One that has no number for any prompt is broken, and no prompt is to blame.
                    await self._check_well()
            except Doubtful:
                await self._check_well()
                rows = await self._answer_or_refusal(request(), read)
            except Unjudgeable:
                # Started again with other options, as without log-probabilities, it refuses whatever it is asked.
                await self._check_well()
                raise
            await self._check_weights()
        except Unavailable as error:
            self._count(error)
            raise
        finally:
            self.prompts_under_way -= prompts
        self._failures = 0
        return rows

    def _count(self, failure: Unavailable) -> None:
        self._failures += 1
        if self._failures >= FAILURES_TO_OPEN or isinstance(failure, (AnotherModel, KeyRefused, _Gone)):
            self.leave_alone(failure)

    async def _answer(self, request: Json, read: Callable[[Json, object], Sequence[Row]]) -> Sequence[Row]:
        answer = await self._json("POST", self.protocol.ask_path, request)
        try:
            return read(request, answer)
        except Unavailable as error:
            raise type(error)(f"{self.url}: {error}") from error
        except BROKEN as error:
            raise Unavailable(f"{self.url}: {_said(error)}") from error

    async def _answer_or_refusal(self, request: Json, read: Callable[[Json, object], Sequence[Row]]) -> Sequence[Row]:
        """Ask a server again that is well but for these prompts. One that takes our key may still answer them 403."""
        try:
            return await self._answer(request, read)
        except Doubtful as error:
            raise Unjudgeable("prompt_refused", f"{error}, twice, and is well but for this") from error

    async def _check_well(self) -> None:
        try:
            await self._check_candidates(self.protocol, self.model)
        except Misconfigured as error:
            raise Unavailable(str(error)) from error

    async def _check_weights(self) -> None:
        """After the answer and not before it: in between a server can be started again with others."""
        path = self.protocol.weights_path
        if path is None:
            return
        try:
            weights = self.protocol.weights_in(await self._json("GET", path))
        except BROKEN as error:
            raise Unavailable(f"GET {self.url}{path} does not say what it serves: {error!r}") from error
        if weights != self.weights:
            raise AnotherModel(f"{self.url} serves another model than at its last check: {weights}")

    async def _json(self, method: str, path: str, body: Json | None = None) -> Any:
        response = await self._request(method, path, body)
        try:
            return response.json()
        except (ValueError, RecursionError) as error:
            raise Unavailable(
                f"{method} {self.url}{path} answered what is not JSON: {response.text[:SHOWN_CHARS]!r}"
            ) from error

    async def _request(self, method: str, path: str, body: Json | None = None) -> httpx.Response:
        import httpx

        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.request(method, self._url + path, json=body)
        except TimeoutError as error:
            raise Unavailable(
                f"{method} {self.url}{path}: no answer within {self._timeout_s:g} s (guard.openai.timeout_s)"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
                raise _Untrusted(
                    f"guard.openai.ca_file: the certificate of {self.url} is not trusted: {error}"
                ) from error
            said = f"{method} {self.url}{path}: {type(error).__name__}: {error}"
            if self.url.startswith("https:") and any(map(_is_cut, _causes(error))):
                said += "; cut off, as by a server that misses a certificate of ours (guard.openai.cert_file)"
            is_gone = isinstance(error, (httpx.NetworkError, httpx.RemoteProtocolError))
            raise (_Gone if is_gone else Unavailable)(said) from error
        if response.is_success:
            return response
        said = f"{method} {self.url}{path} answered {response.status_code}: {message_in(response.content)}"
        if response.status_code in REFUSES_US:
            raise KeyRefused(f"guard.openai.api_key: {said}")
        if response.status_code in REFUSES_PROMPT:
            raise Unjudgeable("prompt_refused", said)
        if response.status_code == MAYBE_REFUSES_PROMPT:
            raise Doubtful(said)
        raise (_Lacking if response.status_code in LACKS_PATH else Unavailable)(said)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, Unavailable) else f"the answer is broken: {error!r}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_cut(error: BaseException) -> bool:
    """A server learns of a missing certificate after the handshake, and most cut the connection without a word."""
    return isinstance(error, ConnectionResetError) or (
        isinstance(error, ssl.SSLError) and "ALERT" in str(error).upper()
    )
