"""When a server is left alone, for how long it is waited for, and what it takes to be used again."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aiohttp import web

from tests.shown import shown
from tests.unit.engines.cases import openai_engine
from tests.unit.engines.reference import read_reference
from tests.unit.engines.replay import PROMPTS, Replay, away, is_left_alone, scores_again, until
from workers.errors import Fatal, Unavailable


async def test_a_slow_server_is_not_waited_for_beyond_its_time(server: Replay) -> None:
    engine = openai_engine(server.url, timeout_s=0.3)
    await engine.start()

    async def slow(request: web.Request) -> web.StreamResponse | None:
        if request.path == server.kind.ask_path:
            await asyncio.sleep(1)
        return None

    server.fault = slow
    with pytest.raises(Unavailable, match=r"no answer within 0\.3 s"):
        await engine.score(read_reference().prompts[:1], [1])
    await engine.close()


async def test_a_server_that_trickles_is_not_waited_for_beyond_its_time(server: Replay) -> None:
    engine = openai_engine(server.url, timeout_s=0.3)
    await engine.start()

    async def trickle(request: web.Request) -> web.StreamResponse | None:
        if request.path != server.kind.ask_path:
            return None
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(100):
            await response.write(b" ")
            await asyncio.sleep(0.1)
        return response

    server.fault = trickle
    with pytest.raises(Unavailable, match=r"no answer within 0\.3 s"):
        await engine.score(read_reference().prompts[:1], [1])
    await engine.close()


async def test_past_the_deadline_of_who_asks_no_further_attempt_is_made(server: Replay) -> None:
    engine = openai_engine(server.url)
    await engine.start()
    server.fault = server.asking(lambda: web.Response(status=503))
    asked = server.asked.count(server.kind.ask_path)
    with pytest.raises(Unavailable):
        await engine.score(read_reference().prompts[:1], [1], time.monotonic())
    assert server.asked.count(server.kind.ask_path) == asked + 1
    await engine.close()


async def test_another_server_answers_for_one_that_fails_which_is_then_left_alone(servers: list[Replay]) -> None:
    reference = read_reference()
    bad, good = servers
    engine = openai_engine(bad.url, good.url)
    await engine.start()
    failed = shown("guardline_failed_attempts_total", at="model_server")
    bad.fault = away
    for _ in range(8):
        try:
            await engine.score(reference.prompts[:PROMPTS], reference.candidates)
        except Unavailable:
            continue
    asked = bad.asked.count(bad.kind.ask_path)
    for _ in range(5):
        rows = await engine.score(reference.prompts[:PROMPTS], reference.candidates)
        assert rows[0] == pytest.approx(reference.scores[0], abs=1e-3)
    assert bad.asked.count(bad.kind.ask_path) == asked, "its circuit is open"
    assert shown("guardline_open_circuits", circuit="model_servers") == 1
    assert shown("guardline_failed_attempts_total", at="model_server") > failed
    bad.fault, good.fault = None, away
    await scores_again(engine)
    await until(lambda: shown("guardline_open_circuits", circuit="model_servers") == 1)
    await engine.close()


async def test_a_server_that_hangs_uses_up_one_attempt_and_not_all(servers: list[Replay]) -> None:
    bad, good = servers
    engine = openai_engine(bad.url, good.url, timeout_s=0.3)
    await engine.start()
    released = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse | None:
        if request.path == bad.kind.ask_path:
            await released.wait()
        return None

    bad.fault = hang
    reference = read_reference()
    asked = bad.asked.count(bad.kind.ask_path)
    for _ in range(2):
        rows = await engine.score(reference.prompts[:PROMPTS], reference.candidates)
        assert rows[0] == pytest.approx(reference.scores[0], abs=1e-3)
    assert bad.asked.count(bad.kind.ask_path) > asked, "it was the first to be asked"
    released.set()
    await engine.close()


async def test_a_call_that_would_be_repeated_when_the_engine_closes_ends(servers: list[Replay]) -> None:
    engine = openai_engine(*(server.url for server in servers))
    await engine.start()
    closing: list[asyncio.Task[None]] = []

    def fail_while_the_engine_closes() -> web.Response:
        closing.append(asyncio.create_task(engine.close()))
        return web.Response(status=503)

    for server in servers:
        server.fault = server.asking(fail_while_the_engine_closes)
    with pytest.raises(Fatal, match="was closed"):
        await engine.score(read_reference().prompts[:1], [1])
    assert closing, "the call reached a server before the engine closed"
    await asyncio.gather(*closing)


async def test_a_server_that_is_away_at_start_is_used_once_it_is_there(servers: list[Replay]) -> None:
    late, there = servers
    late.fault = away
    engine = openai_engine(late.url, there.url)
    await engine.start()
    late.fault, there.fault = None, away
    await scores_again(engine)
    await engine.close()


async def test_a_server_that_hangs_keeps_no_other_one_from_coming_back(servers: list[Replay]) -> None:
    engine = openai_engine(*(server.url for server in servers), timeout_s=30)
    await engine.start()
    for server in servers:
        server.fault = away
    await is_left_alone(engine)

    released = asyncio.Event()

    async def hang(request: web.Request) -> web.StreamResponse | None:
        await released.wait()
        return None

    servers[0].fault, servers[1].fault = hang, None
    await scores_again(engine)
    released.set()
    await engine.close()


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", "7", '{"data": 7}', '{"data": [[]]}', '{"data": [{}]}', "<html>"]
)
async def test_a_server_that_answers_nonsense_for_a_while_is_used_again(server: Replay, text: str) -> None:
    engine = openai_engine(server.url)
    await engine.start()

    async def nonsense(request: web.Request) -> web.StreamResponse | None:
        return web.Response(text=text)

    server.fault = nonsense
    await is_left_alone(engine)
    asked = len(server.asked)
    await until(lambda: len(server.asked) > asked + 2)
    server.fault = None
    await scores_again(engine)
    await engine.close()


async def test_a_connection_that_breaks_is_reason_enough_to_check_the_server_before_it_is_used(server: Replay) -> None:
    engine = openai_engine(server.url)
    await engine.start()

    async def cut(request: web.Request) -> web.StreamResponse | None:
        assert request.transport is not None
        request.transport.abort()
        return None

    server.fault = cut
    asked = server.asked.count(server.kind.ask_path)
    with pytest.raises(Unavailable, match="none of 1 servers is well"):
        await engine.score(read_reference().prompts[:1], [1])
    assert server.asked.count(server.kind.ask_path) == asked + 1
    server.fault = None
    await scores_again(engine)
    await engine.close()


def reweigh(document: Any) -> None:
    served = document["data"][0] if "data" in document else document
    served["root" if "data" in document else "model_path"] = "another"


async def test_a_server_that_is_given_other_weights_without_a_failure_is_used_no_more(server: Replay) -> None:
    engine = openai_engine(server.url)
    await engine.start()
    await scores_again(engine)
    server.fault = server.changed(server.kind.weights_path, reweigh)
    await is_left_alone(engine)
    server.fault = None
    await scores_again(engine)
    await engine.close()


async def test_the_weights_of_the_servers_are_part_of_what_an_assessment_comes_from(server: Replay) -> None:
    identities = set()
    for fault in (None, server.changed(server.kind.weights_path, reweigh)):
        server.fault = fault
        engine = openai_engine(server.url)
        await engine.start()
        identities.add(engine.identity)
        await engine.close()
    assert len(identities) == 2


async def test_a_server_that_comes_later_with_weights_of_its_own_is_not_used(servers: list[Replay]) -> None:
    late, there = servers
    late.fault = away
    engine = openai_engine(late.url, there.url)
    await engine.start()
    late.fault, there.fault = late.changed(late.kind.weights_path, reweigh), away
    await is_left_alone(engine)
    asked = len(late.asked)
    await until(lambda: late.asked[asked:].count(late.kind.weights_path) > 2)
    assert late.kind.ask_path not in late.asked
    await engine.close()


async def test_a_server_that_comes_back_with_other_weights_under_the_same_name_is_not_used(server: Replay) -> None:
    engine = openai_engine(server.url)
    await engine.start()
    server.fault = server.asking(lambda: web.Response(status=503))
    with pytest.raises(Unavailable):
        await engine.score(read_reference().prompts[:1], [1])

    path = server.kind.weights_path
    server.fault = server.changed(path, reweigh)
    asked = len(server.asked)
    await until(lambda: server.asked[asked:].count(path) > 2)
    assert server.kind.ask_path not in server.asked[asked:]
    with pytest.raises(Unavailable, match="none of 1 servers is well"):
        await engine.score(read_reference().prompts[:1], [1])
    await engine.close()
