"""What the engine for servers does for SGLang alone: it dies of bad prompts, fails over them, and names no model."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.answers import answered
from tests.unit.engines.cases import openai_engine
from tests.unit.engines.reference import CONTEXT_TOKENS, VOCABULARY, read_reference
from tests.unit.engines.replay import PROMPTS, SGLANG, Replay, only_with, until
from workers.engines import openai as engine_module
from workers.engines.engine import Refused
from workers.engines.openai import OpenAIEngine
from workers.engines.openai_protocol import message_in
from workers.engines.openai_sglang import SglangProtocol
from workers.errors import Misconfigured, Unavailable

REFUSED = [item for item in SGLANG.recorded if item["status"] == 400]


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replay]:
    monkeypatch.setattr(engine_module, "HEALTH_S", 0.05)
    server = Replay(SGLANG)
    runner = await server.start()
    yield server
    await runner.cleanup()


@pytest.fixture
async def engine(server: Replay) -> AsyncIterator[OpenAIEngine]:
    engine = openai_engine(server.url)
    await engine.start()
    server.asked.clear()
    yield engine
    await engine.close()


async def scores(engine: OpenAIEngine) -> list[list[float]]:
    reference = read_reference()
    return answered(await engine.score(reference.prompts[:PROMPTS], reference.candidates))


@pytest.mark.parametrize("prompt", [[], [VOCABULARY], [-1], [5] * CONTEXT_TOKENS], ids=["empty", "high", "-1", "long"])
async def test_a_prompt_that_would_kill_the_server_is_not_sent(
    server: Replay, engine: OpenAIEngine, prompt: list[int]
) -> None:
    assert isinstance((await engine.score([prompt], [1]))[0], Refused)
    assert isinstance((await engine.complete([prompt], 3))[0], Refused)
    assert server.asked == []


async def test_a_500_of_a_server_that_is_well_but_for_the_prompts_is_a_refusal(
    server: Replay, engine: OpenAIEngine
) -> None:
    reference = read_reference()
    choke = server.asking(lambda: web.json_response({"error": {"message": "index out of range"}}, status=500))
    server.fault = only_with(reference.prompts[0], choke)
    for _ in range(5):
        (refused,) = await engine.score(reference.prompts[:1], reference.candidates)
        assert isinstance(refused, Refused)
        assert "answered 500: index out of range, twice, and is well but for this" in refused.detail
    assert server.asked.count("/generate") == 15, "each is sent twice, with a good prompt in between"
    server.fault = None
    assert len(await scores(engine)) == PROMPTS, "its circuit is not open"


async def test_a_500_to_every_prompt_is_the_servers_fault_and_it_is_left_alone(
    server: Replay, engine: OpenAIEngine
) -> None:
    server.fault = server.asking(lambda: web.Response(status=500, text="Internal Server Error"))
    with pytest.raises(Unavailable, match="answered 500"):
        await scores(engine)
    with pytest.raises(Unavailable, match="none of 1 servers is well"):
        await scores(engine)


async def test_a_500_once_is_asked_again(server: Replay, engine: OpenAIEngine) -> None:
    left = [web.Response(status=500)]

    async def stumble(request: web.Request) -> web.StreamResponse | None:
        return left.pop() if request.path == "/generate" and left else None

    server.fault = stumble
    assert (await scores(engine))[0] == pytest.approx(read_reference().scores[0], abs=1e-3)


@pytest.mark.parametrize("field", ["model_path", "weight_version"])
async def test_other_weights_under_the_same_name_are_never_an_answer(
    server: Replay, engine: OpenAIEngine, field: str
) -> None:
    def change(document: Any) -> None:
        document[field] = "another"

    server.fault = server.changed("/model_info", change)
    with pytest.raises(Unavailable):
        await scores(engine)
    asked = server.asked.count("/generate")
    assert asked == 1, "one look is enough to leave it alone"
    with pytest.raises(Unavailable, match="none of 1 servers is well"):
        await scores(engine)
    server.fault = None
    await until(lambda: server.asked.count("/generate") > asked)
    assert len(await scores(engine)) == PROMPTS


async def test_a_completion_that_ended_nobody_knows_how_is_none(server: Replay, engine: OpenAIEngine) -> None:
    def spoil(document: Any) -> None:
        document[0]["meta_info"]["finish_reason"] = "stop"

    server.fault = server.changed("/generate", spoil)
    with pytest.raises(Unavailable, match="AttributeError"):
        await engine.complete(read_reference().prompts[:PROMPTS], 12)


async def test_an_adapter_is_no_model_for_generate(server: Replay) -> None:
    def adapt(document: Any) -> None:
        document["data"].append({**document["data"][0], "id": "adapter", "parent": "guard"})

    server.fault = server.changed("/v1/models", adapt)
    with pytest.raises(Misconfigured, match=r"does not serve 'adapter' \(it serves: guard\)"):
        await openai_engine(server.url, model="adapter").start()


@pytest.mark.parametrize("refusal", REFUSED, ids=[str(number) for number in range(len(REFUSED))])
async def test_every_recorded_refusal_is_bad_input_with_its_sentence(
    server: Replay, engine: OpenAIEngine, refusal: dict[str, Any]
) -> None:
    reference = read_reference()
    response = server.asking(lambda: web.Response(status=400, text=refusal["answer"]))
    server.fault = only_with(reference.prompts[0], response)
    said = message_in(refusal["answer"].encode())
    assert said
    assert not said.startswith("{"), "the sentence, and not the JSON around it"
    (refused,) = await engine.score(reference.prompts[:1], reference.candidates)
    assert isinstance(refused, Refused)
    assert f"answered 400: {said}" in refused.detail


def test_the_recording_holds_each_shape_of_error() -> None:
    shapes = {type(json.loads(item["answer"]).get("error")) for item in REFUSED}
    assert shapes == {dict, str, type(None)}


def test_answers_to_other_prompts_are_none() -> None:
    protocol = SglangProtocol()
    request, other = (protocol.score_request("guard", [[5]], [1]) for _ in range(2))
    answer = [{"meta_info": {"id": other["rid"][0], "output_token_ids_logprobs": [[[-1.0, 1, None]]]}}]
    assert protocol.scores_in(other, answer) == [[-1.0]]
    with pytest.raises(Unavailable, match="those of others"):
        protocol.scores_in(request, answer)
