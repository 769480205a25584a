"""The engine for servers: against what real ones of vLLM and SGLang answered, and against servers that misbehave."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from tests.answers import answered
from tests.unit.engines.cases import openai_engine
from tests.unit.engines.reference import COMPLETION_TOKENS, read_reference
from tests.unit.engines.replay import PROMPTS, Fault, Replay, away, only_with, scores_again
from workers.engines.engine import Refused
from workers.engines.openai import PROMPTS_A_REQUEST
from workers.engines.openai_protocol import checked_row, message_in
from workers.errors import Misconfigured, Unavailable


async def scores(*urls: str, **options: Any) -> list[list[float]]:
    """Start, score the recorded prompts, close."""
    engine = openai_engine(*urls, **options)
    await engine.start()
    try:
        reference = read_reference()
        return answered(await engine.score(reference.prompts[:PROMPTS], reference.candidates))
    finally:
        await engine.close()


async def test_recorded_answers_are_read_as_the_reference_says(server: Replay) -> None:
    reference = read_reference()
    for row, expected in zip(await scores(server.url), reference.scores[:PROMPTS], strict=True):
        assert row == pytest.approx(expected, abs=1e-3)
    engine = openai_engine(server.url + "/v1/")
    await engine.start()
    completions = await engine.complete(reference.prompts[:PROMPTS], COMPLETION_TOKENS)
    assert completions == reference.completions[:PROMPTS]
    await engine.close()


async def test_the_key_goes_along_with_every_request(server: Replay) -> None:
    await scores(server.url, api_key="secret")
    assert set(server.headers) == {"Bearer secret"}


def rename(document: Any) -> None:
    document["data"][0]["id"] = "another"


def retokenize(document: Any) -> None:
    document["tokens"][0] += 1


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            lambda server: server.changed("/v1/models", rename),
            r"guard\.openai\.model: .* does not serve 'guard' \(it serves: another\)",
        ),
        (
            lambda server: server.changed(server.kind.room_path, server.kind.shorten),
            r"guard\.context_tokens: .* takes 100 tokens",
        ),
        (
            lambda server: server.changed("/tokenize", retokenize),
            r"the tokenizer of .* is not that of guard.model: asked for the tokens of '.*', it answered \[.*\] instead",
        ),
        (
            lambda server: server.changed(server.kind.ask_path, server.kind.choose_itself),
            "does not give the log-probabilities of chosen tokens",
        ),
        (
            lambda server: server.changed(server.kind.ask_path, server.kind.no_number),
            "does not give the log-probabilities of chosen tokens.*: the server gave log-probabilities that are none",
        ),
    ],
    ids=["name", "room", "tokenizer", "candidates", "numbers"],
)
async def test_a_server_with_something_else_is_refused_at_start(
    server: Replay, fault: Callable[[Replay], Fault], sentence: str
) -> None:
    server.fault = fault(server)
    with pytest.raises(Misconfigured, match=sentence):
        await openai_engine(server.url, model="guard").start()


async def test_a_server_or_gateway_that_lacks_a_path_is_refused_with_all_that_it_needs(server: Replay) -> None:
    kind = server.kind
    lacking = ""

    async def lacks(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=404, text="nothing here") if request.path == lacking else None

    server.fault = lacks
    for lacking in ("/v1/models", kind.well_path, "/tokenize", kind.ask_path):
        with pytest.raises(Misconfigured) as refused:
            await openai_engine(server.url, model="guard").start()
        said = str(refused.value)
        assert f"{server.url}{lacking} answered 404: nothing here. Supported are SGLang since" in said
        assert "to be reachable, also through a gateway" in said
        assert "/tokenize" in said.partition("Supported")[2]


async def test_what_another_kind_of_server_answered_is_in_the_sentence(server: Replay) -> None:
    async def another(request: web.Request) -> web.StreamResponse | None:
        return web.json_response({"models": ["llama"]}) if request.path == "/v1/models" else None

    server.fault = another
    with pytest.raises(
        Misconfigured, match=r"GET http.*/v1/models answered \{'models': \['llama'\]\}, which lacks what"
    ):
        await openai_engine(server.url).start()


async def test_a_password_in_the_url_of_a_server_is_used_and_never_shown(server: Replay) -> None:
    engine = openai_engine(server.url.replace("http://", "http://user:canary@"), model="guard")
    await engine.start()
    await engine.close()
    assert all((header or "").startswith("Basic ") for header in server.headers)
    server.fault = away
    with pytest.raises(Unavailable) as refused:
        await engine.start()
    assert "http://**********@127.0.0.1" in str(refused.value)
    assert "canary" not in str(refused.value)


async def test_a_server_that_is_not_ready_yet_is_a_sentence(server: Replay) -> None:
    async def loading(request: web.Request) -> web.StreamResponse | None:
        return web.Response(status=503) if request.path == server.kind.well_path else None

    server.fault = loading
    with pytest.raises(Unavailable, match=rf"guard\.openai\.urls: .*{server.kind.well_path} answered 503"):
        await openai_engine(server.url).start()
    assert server.kind.ask_path not in server.asked


async def test_a_server_that_refuses_the_key_or_is_not_there_is_a_sentence(server: Replay) -> None:
    async def refuse(request: web.Request) -> web.StreamResponse | None:
        return web.json_response({"error": "Unauthorized"}, status=401)

    server.fault = refuse
    with pytest.raises(Misconfigured, match=r"guard\.openai\.api_key: .*401: Unauthorized"):
        await openai_engine(server.url).start()
    with pytest.raises(Unavailable, match=r"guard\.openai\.urls: GET http://127\.0\.0\.1:1/v1/models: ConnectError"):
        await openai_engine("http://127.0.0.1:1").start()
    with pytest.raises(Misconfigured, match=r"guard\.openai\.urls: name at least one"):
        openai_engine()


@pytest.mark.parametrize(
    "response",
    [
        lambda: web.Response(status=500, text="boom"),
        lambda: web.Response(status=503),
        lambda: web.Response(status=429, headers={"Retry-After": "1"}),
        lambda: web.Response(text="<html>"),
        lambda: web.Response(text='{"model": "guard", "choices": [{"index": 0, "logp'),
        lambda: web.json_response([]),
        lambda: web.json_response({"model": "guard", "choices": []}),
        lambda: web.json_response({"model": "another", "choices": []}),
        lambda: web.json_response([{"meta_info": {"id": "another"}}] * PROMPTS),
        lambda: web.Response(headers={"Content-Length": "500"}, body=b"", status=200),
        lambda: web.Response(text="[" * 100_000),
        lambda: web.Response(status=503, text="[" * 100_000),
        lambda: web.json_response({"model": "guard", "choices": [{"index": float("inf")}] * PROMPTS}),
        lambda: web.json_response({"model": "guard", "choices": 6}),
        lambda: web.json_response([1] * PROMPTS),
    ],
    ids=[
        *["500", "503", "429", "html", "half", "list", "none", "another", "others", "cut"],
        *["deep", "deep-error", "infinity", "number", "numbers"],
    ],
)
async def test_what_goes_wrong_later_is_worth_another_attempt_and_is_never_an_answer(
    server: Replay, response: Callable[[], web.StreamResponse]
) -> None:
    reference = read_reference()
    engine = openai_engine(server.url, timeout_s=3)
    await engine.start()
    server.fault = server.asking(response)
    with pytest.raises(Unavailable):
        await engine.score(reference.prompts[:PROMPTS], reference.candidates)
    server.fault = None
    await scores_again(engine)
    await engine.close()


def reverse(document: Any) -> None:
    (document if isinstance(document, list) else document["choices"]).reverse()


async def test_a_server_that_has_no_number_for_any_prompt_has_failed(server: Replay) -> None:
    engine = openai_engine(server.url)
    await engine.start()
    server.fault = server.changed(server.kind.ask_path, server.kind.no_number)
    reference = read_reference()
    with pytest.raises(Unavailable, match="log-probabilit"):
        await engine.score(reference.prompts[:PROMPTS], reference.candidates)
    await engine.close()


CULPRIT = 2
"""The index of the prompt that a server has no answer for."""


def no_number_for_one(server: Replay) -> Fault:
    def spoil(document: Any) -> None:
        scores = server.kind.scores_of(document)[CULPRIT]
        if isinstance(scores, dict):
            scores.update(dict.fromkeys(scores, float("nan")))
        else:
            scores[0][0] = float("nan")

    return only_with(read_reference().prompts[CULPRIT], server.changed(server.kind.ask_path, spoil))


def refusal_of_one(status: int, text: str = "") -> Callable[[Replay], Fault]:
    def fault(server: Replay) -> Fault:
        response = server.asking(lambda: web.Response(status=status, text=text or server.kind.too_long))
        return only_with(read_reference().prompts[CULPRIT], response)

    return fault


@pytest.mark.parametrize(
    ("fault", "reason", "sentence"),
    [
        (no_number_for_one, "no_number", "log-probabilities that are none"),
        (refusal_of_one(400), "prompt_refused", "answered 400: .*context length"),
        (refusal_of_one(422, "unheard of"), "prompt_refused", "answered 422: unheard of"),
        (refusal_of_one(500, "not JSON compliant"), "prompt_refused", "answered 500: not JSON compliant, twice"),
        (refusal_of_one(403, "blocked by a rule"), "prompt_refused", "answered 403: blocked by a rule, twice"),
    ],
    ids=["nan", "400", "422", "500", "403"],
)
async def test_one_prompt_without_an_answer_is_refused_alone_and_is_no_failure_of_its_server(
    server: Replay, fault: Callable[[Replay], Fault], reason: str, sentence: str
) -> None:
    """A 500 and a 403 may mean the server or the key; it takes another prompt in between to tell."""
    engine = openai_engine(server.url)
    await engine.start()
    reference = read_reference()
    server.fault = fault(server)
    for _ in range(4):
        rows = await engine.score(reference.prompts[:PROMPTS], reference.candidates)
        refused = rows.pop(CULPRIT)
        assert isinstance(refused, Refused)
        assert refused.reason == reason
        assert re.search(sentence, refused.detail)
        expected = [row for index, row in enumerate(reference.scores[:PROMPTS]) if index != CULPRIT]
        for row, other in zip(answered(rows), expected, strict=True):
            assert row == pytest.approx(other, abs=1e-3)
    await engine.close()


async def test_the_refused_prompt_of_a_whole_request_is_found_by_halves(server: Replay) -> None:
    engine = openai_engine(server.url)
    await engine.start()
    reference = read_reference()
    good = [prompt for index, prompt in enumerate(reference.prompts[:PROMPTS]) if index != CULPRIT]
    prompts = [good[index % len(good)] for index in range(PROMPTS_A_REQUEST)]
    prompts[11] = reference.prompts[CULPRIT]
    server.fault = refusal_of_one(400)(server)
    server.asked.clear()
    rows = await engine.score(prompts, reference.candidates)
    assert [index for index, row in enumerate(rows) if isinstance(row, Refused)] == [11]
    requests = 1 + 2 * 5  # The whole, and two halves of 32, 16, 8, 4 and 2.
    checks = 6  # A good prompt after each refusal tells that the server is well.
    assert server.asked.count(server.kind.ask_path) <= requests + checks
    assert engine.answered == len(prompts), "each counts once, the refused one too"
    await engine.close()


async def test_a_number_beyond_all_bounds_is_no_answer(server: Replay) -> None:
    def enlarge(document: Any) -> None:
        for found in server.kind.scores_of(document):
            if isinstance(found, dict):
                found.update(dict.fromkeys(found, -(10**400)))
            else:
                found[0][0] = -(10**400)

    engine = openai_engine(server.url)
    await engine.start()
    server.fault = server.changed(server.kind.ask_path, enlarge)
    reference = read_reference()
    with pytest.raises(Unavailable, match="OverflowError"):
        await engine.score(reference.prompts[:PROMPTS], reference.candidates)
    await engine.close()


@pytest.mark.parametrize("ids", [None, [-1], [2**40], {"0": 1}])
async def test_a_completion_of_another_shape_is_none(server: Replay, ids: object) -> None:
    def spoil(document: Any) -> None:
        if isinstance(document, list):
            document[0]["output_ids"] = ids
        else:
            document["choices"][0]["token_ids"] = ids

    engine = openai_engine(server.url)
    await engine.start()
    server.fault = server.changed(server.kind.ask_path, spoil)
    with pytest.raises(Unavailable):
        await engine.complete(read_reference().prompts[:PROMPTS], COMPLETION_TOKENS)
    await engine.close()


async def test_a_completion_that_the_server_broke_off_is_none(server: Replay) -> None:
    # Its beginning may read like a verdict.
    def break_off(document: Any) -> None:
        if isinstance(document, list):
            document[0]["meta_info"]["finish_reason"] = {"type": "abort", "message": "out of memory"}
        else:
            document["choices"][0]["finish_reason"] = "abort"

    engine = openai_engine(server.url)
    await engine.start()
    server.fault = server.changed(server.kind.ask_path, break_off)
    with pytest.raises(Unavailable, match="broke a completion off"):
        await engine.complete(read_reference().prompts[:PROMPTS], COMPLETION_TOKENS)
    await engine.close()


@pytest.mark.parametrize("value", [False, True, None, "-1", [], float("nan"), float("-inf"), 0.1, -9_999])
def test_what_is_no_log_probability_is_no_number(value: object) -> None:
    assert checked_row([-1, -0.5, 0]) == [-1, -0.5, 0]
    refused = checked_row([-1.5, value])
    assert isinstance(refused, Refused)
    assert refused.reason == "no_number"


async def test_answers_in_another_order_are_not_taken_for_one_another(server: Replay) -> None:
    reference = read_reference()
    server.fault = server.changed(server.kind.ask_path, reverse)
    for row, expected in zip(await scores(server.url), reference.scores[:PROMPTS], strict=True):
        assert row == pytest.approx(expected, abs=1e-3)


async def test_a_server_that_refuses_every_prompt_has_failed(server: Replay) -> None:
    # One that was started again with other options, as without log-probabilities: no prompt is to blame.
    engine = openai_engine(server.url)
    await engine.start()
    server.fault = server.asking(lambda: web.Response(status=400, text=server.kind.too_long))
    with pytest.raises(Unavailable, match="refuses a valid prompt"):
        await engine.score(read_reference().prompts[:PROMPTS], [1])
    await engine.close()


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b'{"error": {"message": "too long", "code": 400}}', "too long"),
        (b'{"error": "too long"}', "too long"),
        (b'{"object": "error", "message": "too long"}', "too long"),
        (b'{"detail": "too long"}', "too long"),
        (b"too long", "too long"),
        (b"", "no reason given"),
        (b"\xff\xfe", "��"),
    ],
)
def test_every_shape_of_error_gives_its_sentence(body: bytes, sentence: str) -> None:
    assert message_in(body) == sentence
