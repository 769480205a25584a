"""Servers that replay what real ones answered, over HTTP, and misbehave on demand; one for each kind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext
from typing import Any

import pytest
from aiohttp import web

from tests.unit.engines.reference import read_reference
from workers.engines.openai import OpenAIEngine
from workers.errors import Unavailable

PROMPTS = 6
"""How many prompts of the reference were recorded."""

Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
Change = Callable[[Any], None]


@dataclass(frozen=True)
class Kind:
    """A kind of server: what one answered, and how its answers are spoilt."""

    name: str
    recorded: list[dict[str, Any]]
    well_path: str
    ask_path: str
    room_path: str
    weights_path: str
    """Says where the weights come from."""
    shorten: Change
    """Say that fewer tokens are taken."""
    scores_of: Callable[[Any], list[dict[str, Any] | list[Any]]]
    """Give what holds the log-probabilities of each prompt."""
    choose_itself: Callable[[Any], None]
    """Give tokens of the server's own choice."""
    no_number: Callable[[Any], None]
    nothing: Any
    """An answer without answers."""
    prompts_field: str
    """Where a request has its prompts."""
    pick: Callable[[dict[str, Any], Any, list[int]], Any]
    """Give the answer to a request that has these prompts of a recorded one, in this order."""

    @property
    def too_long(self) -> str:
        """What was answered to a prompt that does not fit."""
        return next(str(item["answer"]) for item in self.recorded if item["status"] == 400)


def _recorded(name: str) -> list[dict[str, Any]]:
    exchanges: list[dict[str, Any]] = json.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))
    return exchanges


def _vllm_shorten(document: Any) -> None:
    document["data"][0]["max_model_len"] = 100


def _vllm_scores(document: Any) -> list[Any]:
    return [choice["logprobs"]["top_logprobs"][0] for choice in document["choices"]]


def _vllm_choose_itself(document: Any) -> None:
    for found in _vllm_scores(document):
        found.clear()
        found["token_id:3"] = -0.1


def _vllm_no_number(document: Any) -> None:
    for found in _vllm_scores(document):
        found.update(dict.fromkeys(found, float("nan")))


def _sglang_shorten(document: Any) -> None:
    document["max_req_input_len"] = 100


def _sglang_scores(document: Any) -> list[Any]:
    return [item["meta_info"]["output_token_ids_logprobs"][0] for item in document]


def _sglang_choose_itself(document: Any) -> None:
    for found in _sglang_scores(document):
        found[:] = [[-0.1, 3, None]]


def _sglang_no_number(document: Any) -> None:
    for found in _sglang_scores(document):
        found[0][0] = float("nan")


def _vllm_pick(sent: dict[str, Any], document: Any, indices: list[int]) -> Any:
    by_index = {choice["index"]: choice for choice in document["choices"]}
    return {**document, "choices": [{**by_index[old], "index": new} for new, old in enumerate(indices)]}


def _sglang_pick(sent: dict[str, Any], document: Any, indices: list[int]) -> Any:
    return [
        {**document[old], "meta_info": {**document[old]["meta_info"], "id": name}}
        for name, old in zip(sent["rid"], indices, strict=True)
    ]


VLLM = Kind(
    "vllm",
    _recorded("vllm-answers.json"),
    "/health",
    "/v1/completions",
    "/v1/models",
    "/v1/models",
    _vllm_shorten,
    _vllm_scores,
    _vllm_choose_itself,
    _vllm_no_number,
    {"model": "guard", "choices": []},
    "prompt",
    _vllm_pick,
)
SGLANG = Kind(
    "sglang",
    _recorded("sglang-answers.json"),
    "/ping",
    "/generate",
    "/server_info",
    "/model_info",
    _sglang_shorten,
    _sglang_scores,
    _sglang_choose_itself,
    _sglang_no_number,
    [],
    "input_ids",
    _sglang_pick,
)
KINDS = (VLLM, SGLANG)


class Replay:
    """A server that gives the recorded answers, and a fault instead while there is one."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.fault: Fault | None = None
        self.asked: list[str] = []
        self.headers: list[str | None] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request of any path."""
        self.asked.append(request.path)
        self.headers.append(request.headers.get("Authorization"))
        if self.fault is not None and (response := await self.fault(request)) is not None:
            return response
        status, text = await self.recorded(request)
        return web.Response(text=text, status=status, content_type="application/json")

    async def recorded(self, request: web.Request) -> tuple[int, str]:
        """Find what was answered to the same request. SGLang's names of prompts differ each time, and come back."""
        sent = json.loads(await request.read() or b"null")
        for exchange in self.kind.recorded:
            if (exchange["method"], exchange["path"]) != (request.method, request.path):
                continue
            if _unnamed(exchange["sent"]) == _unnamed(sent):
                text = str(exchange["answer"])
                for theirs, ours in zip(_names(exchange["sent"]), _names(sent), strict=True):
                    text = text.replace(f'"{theirs}"', f'"{ours}"')
                return int(exchange["status"]), text
            if (indices := self._indices(exchange, sent)) is not None:
                return 200, json.dumps(self.kind.pick(sent, json.loads(str(exchange["answer"])), indices))
        raise AssertionError(f"nothing was recorded for {request.method} {request.path} {sent}")

    def _indices(self, exchange: dict[str, Any], sent: Any) -> list[int] | None:
        """Say where a recorded request has the prompts of this one; None where it differs in anything else."""
        field, recorded = self.kind.prompts_field, exchange["sent"]
        if exchange["status"] != 200 or not isinstance(sent, dict) or field not in sent or field not in recorded:
            return None
        if {**_unnamed(recorded), field: None} != {**_unnamed(sent), field: None}:
            return None
        if not all(prompt in recorded[field] for prompt in sent[field]):
            return None
        return [recorded[field].index(prompt) for prompt in sent[field]]

    def changed(self, path: str, change: Change) -> Fault:
        """Answer as recorded, with a change."""

        async def fault(request: web.Request) -> web.StreamResponse | None:
            if request.path != path:
                return None
            _, text = await self.recorded(request)
            document = json.loads(text)
            change(document)
            return web.json_response(document)

        return fault

    def asking(self, response: Callable[[], web.StreamResponse]) -> Fault:
        """Answer to scores and completions with this."""

        async def fault(request: web.Request) -> web.StreamResponse | None:
            return response() if request.path == self.kind.ask_path else None

        return fault

    async def start(self, tls: SSLContext | None = None) -> web.AppRunner:
        """Listen on a free port."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        return runner


def only_with(prompt: list[int], fault: Fault) -> Fault:
    """Spare the requests that do not hold this prompt."""

    async def spared(request: web.Request) -> web.StreamResponse | None:
        sent = json.loads(await request.read() or b"{}")
        return await fault(request) if prompt in sent.get("prompt", sent.get("input_ids", ())) else None

    return spared


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.02)


async def scores_again(engine: OpenAIEngine) -> None:
    """Ask until one of its servers is used."""
    reference = read_reference()
    async with asyncio.timeout(10):
        while True:
            try:
                rows = await engine.score(reference.prompts[:PROMPTS], reference.candidates)
                break
            except Unavailable:
                await asyncio.sleep(0.02)
    assert rows[0] == pytest.approx(reference.scores[0], abs=1e-3)


async def is_left_alone(engine: OpenAIEngine) -> None:
    """Ask until none of its servers is used."""
    reference = read_reference()
    async with asyncio.timeout(10):
        while True:
            try:
                await engine.score(reference.prompts[:PROMPTS], reference.candidates)
            except Unavailable as error:
                if "servers is well" in str(error):
                    return
            await asyncio.sleep(0.02)


async def away(request: web.Request) -> web.StreamResponse | None:
    """Answer as a server that is not ready."""
    return web.Response(status=503)


def _unnamed(sent: Any) -> Any:
    return {name: value for name, value in sent.items() if name != "rid"} if isinstance(sent, dict) else sent


def _names(sent: Any) -> list[str]:
    return list(sent.get("rid", ())) if isinstance(sent, dict) else []
