"""Servers fail one by one: who refuses the key or serves something else is left out while another one is well."""

from __future__ import annotations

import re
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from tests.answers import answered
from tests.unit.engines.cases import openai_engine
from tests.unit.engines.reference import read_reference
from tests.unit.engines.replay import PROMPTS, Replay, away, scores_again, until
from workers.engines.openai import OpenAIEngine
from workers.errors import Misconfigured, Unavailable


async def refuse_key(request: web.Request) -> web.StreamResponse | None:
    return web.json_response({"error": "Unauthorized"}, status=401)


def rename(document: Any) -> None:
    document["data"][0]["id"] = "another"


async def score(engine: OpenAIEngine) -> None:
    reference = read_reference()
    rows = answered(await engine.score(reference.prompts[:PROMPTS], reference.candidates))
    assert rows[0] == pytest.approx(reference.scores[0], abs=1e-3)


@pytest.mark.parametrize("status", [401, 403])
async def test_one_server_that_refuses_the_key_is_left_alone_until_it_takes_it_and_the_log_names_the_setting(
    servers: list[Replay], status: int
) -> None:
    refusing, good = servers
    engine = openai_engine(refusing.url, good.url)
    await engine.start()

    async def refuse(request: web.Request) -> web.StreamResponse | None:
        return web.json_response({"detail": "Forbidden"}, status=status)

    with capture_logs() as logs:
        refusing.fault = refuse
        for _ in range(4):
            await score(engine)
        await until(lambda: bool(logs))
        asked = refusing.asked.count(refusing.kind.ask_path)
        for _ in range(4):
            await score(engine)
        assert refusing.asked.count(refusing.kind.ask_path) == asked, "its circuit is open"
        refusing.fault, good.fault = None, away
        await scores_again(engine)
    said = [(entry["event"], entry["url"]) for entry in logs]
    assert said.count(("a server is left alone", refusing.url)) == 1, "it is said once, however often it is looked at"
    assert ("a server is back", refusing.url) in said
    assert re.match(rf"guard\.openai\.api_key: \w+ {refusing.url}/", logs[0]["error"])
    assert f"answered {status}: Forbidden" in logs[0]["error"]
    await engine.close()


async def test_a_server_that_refuses_the_key_is_found_by_the_health_check_before_it_is_asked(
    servers: list[Replay],
) -> None:
    refusing, good = servers
    engine = openai_engine(refusing.url, good.url)
    await engine.start()
    asked = refusing.asked.count(refusing.kind.ask_path)
    with capture_logs() as logs:
        refusing.fault = refuse_key
        await until(lambda: any(entry["event"] == "a server is left alone" for entry in logs))
    await score(engine)
    assert refusing.asked.count(refusing.kind.ask_path) == asked
    await engine.close()


async def test_the_engine_ends_only_when_all_servers_refuse_the_key(servers: list[Replay]) -> None:
    engine = openai_engine(*(server.url for server in servers))
    await engine.start()
    servers[0].fault, servers[1].fault = refuse_key, away
    for _ in range(6):
        with pytest.raises(Unavailable):
            await score(engine)
    servers[1].fault = refuse_key
    with pytest.raises(Misconfigured, match=r"guard\.openai\.api_key: .*401: Unauthorized\. All servers \(2\) refuse"):
        await scores_again(engine)
    await engine.close()


async def test_a_key_that_the_only_server_refuses_ends_the_engine_at_the_first_call(server: Replay) -> None:
    engine = openai_engine(server.url)
    await engine.start()
    server.fault = server.asking(lambda: web.json_response({"detail": "Forbidden"}, status=403))
    with pytest.raises(Misconfigured, match=r"guard\.openai\.api_key: .*403: Forbidden"):
        await engine.score(read_reference().prompts[:1], [1])
    await engine.close()


@pytest.mark.parametrize("fault", ["key", "model", "away"])
async def test_it_starts_when_one_server_is_well_and_the_others_are_left_out_with_a_sentence(
    servers: list[Replay], fault: str
) -> None:
    bad, good = servers
    faults = {"key": refuse_key, "model": bad.changed("/v1/models", rename), "away": away}
    bad.fault = faults[fault]
    engine = openai_engine(bad.url, good.url, model="guard")
    with capture_logs() as logs:
        await engine.start()
        await score(engine)
    (entry,) = [entry for entry in logs if entry["event"] == "a server is left alone"]
    assert entry["url"] == bad.url
    assert {"key": "guard.openai.api_key: ", "model": "does not serve 'guard'", "away": "answered 503"}[fault] in entry[
        "error"
    ]
    assert bad.kind.ask_path not in bad.asked
    bad.fault, good.fault = None, away
    await scores_again(engine)
    await engine.close()


async def test_without_a_well_server_the_start_says_whether_waiting_may_heal_that(servers: list[Replay]) -> None:
    first, second = servers
    engine = openai_engine(first.url, second.url, model="guard")
    first.fault, second.fault = refuse_key, first.changed("/v1/models", rename)
    with pytest.raises(Misconfigured, match=r"api_key: .*; guard\.openai\.model: .* does not serve 'guard'"):
        await engine.start()
    second.fault = away
    with pytest.raises(Unavailable, match=r"guard\.openai\.urls: .*401: Unauthorized; .*answered 503"):
        await engine.start()
    second.fault = None
    await engine.start()
    await score(engine)
    await engine.close()
