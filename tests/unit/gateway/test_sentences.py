"""The sentences for requests that break the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from tests.unit.gateway.test_gate import KEY, error_of
from workers.gateway import proxy_routes
from workers.gateway.application import create_app
from workers.gateway.gate import Gate
from workers.gateway.judging import Judging
from workers.gateway.keys import Keys
from workers.gateway.moderations import Moderations
from workers.gateway.proxy import ModelProxy
from workers.gateway.rewarding import Rewarding
from workers.reward.rewards import Assessor
from workers.settings import Batch, Gateway

CHAT = {"model": "m", "messages": [{"role": "user", "content": 5}]}


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("moderations", {}, "input: the field is required"),
        ("moderations", {"input": 5}, "input: has to be a text, or has to be a list"),
        ("moderations", {"input": []}, "input: is empty"),
        ("moderations", {"input": ["a", 3]}, "input.1: has to be a text"),
        ("moderations", {"input": [{"type": "text"}]}, "input.0.text: the field is required"),
        ("moderations", {"input": [{"type": "image_url"}]}, "input: part 0 is of the type image_url, which cannot be"),
        ("moderations", {"input": "a", "guardline": {"rol": "user"}}, "guardline.rol: there is no such field"),
        ("completions", {"model": "m", "prompt": [1, 2]}, "prompt.0: has to be a text"),
        ("chat/completions", CHAT, "messages.0.content: has to be a text, or has to be a list"),
        ("reward", {"prompts": ["a"], "completions": ["b", "c"]}, "completions: has 2 entries, and prompts has 1"),
        (
            "reward",
            {"prompts": ["a"], "completions": ["b"], "mode": "hybrid"},
            "scores: the mode hybrid needs the score",
        ),
        ("reward", {"prompts": "a", "completions": ["b"]}, "prompts: has to be a list"),
        ("reward", None, "send a JSON object as the body"),
        ("../moderations", {"input": "a"}, "there is no such path: GET /openapi.json lists"),
    ],
)
async def test_a_request_that_breaks_the_contract_is_told_which_field_does(
    tmp_path: Path, path: str, body: dict[str, Any] | None, sentence: str
) -> None:
    (tmp_path / "key").write_text(KEY)
    settings = Gateway.model_validate({"keys": [{"name": "a", "tenant": "t", "file": tmp_path / "key"}]})
    routers = [
        Moderations(cast(Judging, None), "", 1).router(),
        Rewarding(cast(Assessor, None), "", batch=Batch(), answer_s=1, max_inputs=1, fail=lambda _: None).router(),
        proxy_routes.router(cast(ModelProxy, None)),
    ]
    app = create_app(settings, Gate(Keys(settings)), routers)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://g/v1/", headers=headers
    ) as client:
        answer = await client.post(path, json=body)
    error = error_of(answer)
    assert error["message"].startswith(sentence)
    assert error["param"] is None or sentence.startswith(f"{error['param']}: ")


async def test_a_request_with_another_method_is_told_which_one_the_path_has() -> None:
    gateway = Gateway(open="acme")
    app = create_app(gateway, Gate(Keys(gateway)), [proxy_routes.router(cast(ModelProxy, None))])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://g") as client:
        answer = await client.get("/v1/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert error_of(answer)["message"] == "GET is not the method of /v1/completions: use POST"
