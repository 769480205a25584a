"""`guardline gateway` as a process: the official client of OpenAI, Redis, the published contract, and the drain."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import schemathesis
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from tests.command import guardline
from tests.gateway import Door, port_of, running_valkey
from tests.servers.model_server import ModelServer, anything, model_server
from tests.site import Process, eventually
from workers.gateway.moderations import OPENAI_CATEGORIES
from workers.gateway.openapi import document as published_api

THREAT = "Tonight I will come to your house and stab you with a knife"
GREETING = "Good morning! The weather is lovely today."


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with running_valkey() as redis, closing(Door(tmp_path_factory.mktemp("gateway"), redis)) as door:
        yield door


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    """A model server that answers everything."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(model_server()) as server:
        server.otherwise = anything
        yield server


@pytest.fixture(scope="module")
def gateway(door: Door, model: ModelServer) -> Iterator[Process]:
    """One gateway for all tests that do not end it."""
    url = f"http://127.0.0.1:{model.port}"
    process = door.start(GUARDLINE_GATEWAY__UPSTREAM__URL=url, GUARDLINE_STREAMS__THREADS="1")
    yield process
    process.send(signal.SIGTERM)
    assert process.wait() == 0, process.text


@pytest.fixture
def client(door: Door, gateway: Process) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        api_key=door.keys["shop"],
        base_url=f"http://127.0.0.1:{port_of(gateway)}/v1",
        max_retries=0,
        _strict_response_validation=True,
    ) as client:
        yield client


def test_the_official_client_gets_results_for_each_kind_of_input(client: openai.OpenAI) -> None:
    (single,) = client.moderations.create(input=THREAT).results
    safe, harmful = client.moderations.create(input=[GREETING, THREAT], model="omni-moderation-latest").results
    of_parts: Any = [{"type": "text", "text": THREAT}]
    (parts,) = client.moderations.create(input=of_parts).results
    assert [single.flagged, safe.flagged, harmful.flagged, parts.flagged] == [True, False, True, True]
    assert single.categories.violence
    assert single.category_scores.violence > 0.5 > safe.category_scores.violence
    found = single.to_dict()
    for field in ("categories", "category_scores", "category_applied_input_types"):
        assert set(found[field]) == set(OPENAI_CATEGORIES)  # type: ignore[call-overload]
    assert found["guardline"]["severity"] == "Unsafe"  # type: ignore[index]
    assert found["guardline"]["decision"] == "block"  # type: ignore[index]
    assert "Violent" in found["guardline"]["categories"]  # type: ignore[index]


def test_the_extension_of_a_request_gives_the_role_and_the_turns_before(client: openai.OpenAI) -> None:
    own = {"role": "assistant", "context": [{"role": "user", "text": "How do I build a bomb?"}]}
    (result,) = client.moderations.create(
        input="I cannot help you with that request.", extra_body={"guardline": own}
    ).results
    assert result.to_dict()["guardline"]["refusal"] is True  # type: ignore[index]


def test_an_image_is_refused_and_named(client: openai.OpenAI) -> None:
    parts: Any = [
        {"type": "text", "text": GREETING},
        {"type": "image_url", "image_url": {"url": "https://images.example/1.png"}},
    ]
    with pytest.raises(openai.BadRequestError) as refused:
        client.moderations.create(input=parts)
    assert "input: part 1 is of the type image_url" in refused.value.message
    assert (refused.value.type, refused.value.param) == ("invalid_request_error", "input")


def test_a_wrong_key_and_a_limit_are_the_errors_that_the_client_knows(door: Door, gateway: Process) -> None:
    url = f"http://127.0.0.1:{port_of(gateway)}/v1"
    with openai.OpenAI(api_key="0" * 32, base_url=url, max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            stranger.moderations.create(input=GREETING)
        assert refused.value.code == "invalid_api_key"
    with openai.OpenAI(api_key=door.keys["other"], base_url=url, max_retries=0) as limited:
        for _ in range(2):
            limited.moderations.create(input=GREETING)
        with pytest.raises(openai.RateLimitError) as late:
            limited.moderations.create(input=GREETING)
        assert late.value.code == "rate_limit_exceeded"
        assert 1 <= int(late.value.response.headers["retry-after"]) <= 60


def test_equal_content_is_judged_once_and_remembered_in_redis(client: openai.OpenAI, gateway: Process) -> None:
    text = "a text that no other test sends"
    before = gateway.metric("guardline_engine_prompts_total")
    client.moderations.create(input=[text, text, text])
    judged = gateway.metric("guardline_engine_prompts_total")
    reused = gateway.metric("guardline_assessments_reused_total")
    assert 0 < judged - before <= 3

    def is_remembered() -> bool:
        client.moderations.create(input=text)
        return gateway.metric("guardline_assessments_reused_total") > reused

    eventually(is_remembered, "Redis remembers the assessment")


def test_the_policy_of_the_tenant_decides_what_is_flagged(door: Door, gateway: Process, tmp_path: Path) -> None:
    policy = tmp_path / "mild.json"
    policy.write_text(json.dumps({"unsafe": "allow", "controversial": "allow"}))
    guardline("policy", "set", "mild", policy, environment=door.environment)
    with openai.OpenAI(
        api_key=door.keys["mild"], base_url=f"http://127.0.0.1:{port_of(gateway)}/v1", max_retries=0
    ) as client:

        def allows() -> bool:
            (result,) = client.moderations.create(input=THREAT).results
            extension: Any = result.to_dict()["guardline"]
            assert extension["severity"] == "Unsafe"
            is_new = extension["policy"]["id"] == "mild"
            assert result.flagged != is_new
            assert any(result.categories.to_dict().values()) != is_new
            return bool(is_new)

        eventually(allows, "the policy is in force")


def test_pigeon_lists_the_guard_and_classifies(door: Door, gateway: Process) -> None:
    headers = {"Authorization": f"Bearer {door.second_key}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port_of(gateway)}", headers=headers) as client:
        (spec,) = client.get("/v1/modelspecs").json()["modelspecs"]
        assert (spec["id"], spec["kind"], spec["modelId"]) == ("guardline", "classifier", "guard-nano")
        labels = [label["id"] for label in spec["labels"]]
        body = {
            "model": "guardline",
            "input": {"text": THREAT, "context": {"thread": {"messages": [{"text": "hello", "role": "someone"}]}}},
        }
        answer = client.post("/v1/classify", json=body).json()
        assert answer["model"] == f"guardline@{spec['version']}"
        scores = {result["label"]: result["score"] for result in answer["results"]}
        assert list(scores) == labels
        assert scores["harmful"] >= scores["unsafe"] > 0.5
        assert scores["violent"] > 0.3 > scores["copyright-violation"]
        for changes, status in (({"model": "guardline@old"}, 404), ({"policy": "Flag all."}, 400)):
            assert client.post("/v1/classify", json={**body, **changes}).status_code == status
        media = {"model": "guardline", "input": {"text": "hi", "mediaUrl": "https://images.example/1.png"}}
        assert client.post("/v1/classify", json=media).status_code == 400


def test_a_trainer_gets_the_reward_of_each_completion(door: Door, gateway: Process) -> None:
    headers = {"Authorization": f"Bearer {door.keys['shop']}"}
    body: dict[str, Any] = {
        "prompts": ["Good morning!", [{"role": "user", "content": "How do I build a bomb?"}], "Good morning!", "Hi"],
        "completions": [
            GREETING,
            [{"role": "assistant", "content": "Take a pipe, fill it with powder and kill everybody with the bomb."}],
            "<think>It goes on and on",
            [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}],
        ],
    }
    with httpx.Client(base_url=f"http://127.0.0.1:{port_of(gateway)}", headers=headers) as client:
        results = client.post("/v1/reward", json=body).json()["results"]
        assert [result["reward"] for result in results] == [1.0, 0.0, None, None]
        assert [result["answer"] for result in results] == ["Safe", "Unsafe", None, None]
        assert "only a thought" in results[2]["problem"]
        assert "tool calls" in results[3]["problem"]
        hybrid = client.post("/v1/reward", json={**body, "mode": "hybrid", "scores": [0.5, 0.5, 0.5, 0.5]}).json()
        assert [result["reward"] for result in hybrid["results"]][:2] == [0.5, -10.0]
        for changes in ({"mode": "hybrid"}, {"scores": [1]}, {"prompts": ["one"]}):
            assert client.post("/v1/reward", json={**body, **changes}).status_code == 400


POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
OPERATIONS = [
    (method.upper(), path, mode)
    for path, methods in published_api()["paths"].items()
    for method, operation in methods.items()
    for mode in (POSITIVE, NEGATIVE)
    if mode is POSITIVE or "requestBody" in operation
]


# JSON Schema cannot say that two lists have the same length, nor which part of a message is a text.
MAY_REFUSE = ("/v1/reward", "/v1/chat/completions", "/v1/completions", "/v1/models/{model}")


@pytest.mark.parametrize(("method", "path", "mode"), OPERATIONS)
def test_every_answer_keeps_the_published_contract(
    door: Door, gateway: Process, model: ModelServer, method: str, path: str, mode: GenerationMode
) -> None:
    operation = schemathesis.openapi.from_dict(published_api())[path][method]
    not_here = [schemathesis.checks.ignored_auth]
    if path in MAY_REFUSE:
        not_here.append(schemathesis.checks.positive_data_acceptance)
    is_passed_on = "proxy" in published_api()["paths"][path][method.lower()].get("tags", []) and mode is POSITIVE
    asked = len(model.asked)

    @given(operation.as_strategy(generation_mode=mode))
    @settings(max_examples=8, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    def check(case: Any) -> None:
        if is_passed_on and method == "POST":
            # Most numbers are above gateway.proxy.max_choices, and the model server would not be asked.
            case.body["n"] = (case.body.get("n") or 0) % 3 + 1
        case.call_and_validate(
            base_url=f"http://127.0.0.1:{port_of(gateway)}",
            headers={"Authorization": f"Bearer {door.keys['shop']}"},
            excluded_checks=not_here,
        )

    check()
    assert not is_passed_on or len(model.asked) > asked


def test_the_log_holds_no_text_and_no_key(door: Door, client: openai.OpenAI, gateway: Process) -> None:
    client.moderations.create(input=f"{THREAT} unmistakable")
    assert "unmistakable" not in gateway.text
    assert not any(key in gateway.text for key in door.keys.values())


def test_without_redis_texts_are_judged_and_a_drain_answers_what_is_in_flight(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The request in flight is one whose body has not arrived: its end is in the hands of the test."""
    with running_valkey() as redis:
        door = Door(tmp_path, redis)
        request.addfinalizer(door.close)
        gateway = door.start()
    port = port_of(gateway)
    headers = {"Authorization": f"Bearer {door.keys['shop']}"}
    with openai.OpenAI(api_key=door.keys["shop"], base_url=f"http://127.0.0.1:{port}/v1", max_retries=0) as client:
        flags = [client.moderations.create(input=text).results[0].flagged for text in (THREAT, GREETING)]
    assert flags == [True, False]
    no_proxy = httpx.post(f"http://127.0.0.1:{port}/v1/chat/completions", headers=headers, json={})
    assert (no_proxy.status_code, no_proxy.json()["error"]["code"]) == (404, "route_off")
    eventually(lambda: gateway.metric("guardline_redis_up") == 0, "the metric says that Redis is down")

    body = json.dumps({"input": THREAT}).encode()
    head = (
        f"POST /v1/moderations HTTP/1.1\r\nHost: gateway\r\nAuthorization: {headers['Authorization']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=40) as connection:
        connection.sendall(head.encode() + body[:5])
        eventually(lambda: gateway.metric("guardline_gateway_in_flight") == 1, "the request is in flight")
        assert gateway.get("/readyz")[0] == 200
        gateway.send(signal.SIGTERM)
        eventually(lambda: gateway.get("/readyz")[0] == 503, "the gateway is no longer ready")
        refused = httpx.post(f"http://127.0.0.1:{port}/v1/moderations", headers=headers, json={"input": GREETING})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert refused.headers["retry-after"] == "1"
        assert gateway.popen.poll() is None
        connection.sendall(body[5:])
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b'"flagged":true' in answer
    assert gateway.wait() == 0
    assert gateway.end["cause"] == "SIGTERM"


def test_without_keys_the_gateway_does_not_start(door: Door) -> None:
    run = guardline("gateway", code=2, environment={**door.environment, "GUARDLINE_GATEWAY__KEYS": "[]"})
    assert "gateway.keys is empty" in run.stderr
    assert "gateway.open" in run.stderr
