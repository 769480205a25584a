"""Keys, limits, errors and the drain, with routes that need no guard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from pydantic import BaseModel, StrictBool

from tests.unit.moderation.test_pipeline import until
from workers.errors import Misconfigured
from workers.gateway.application import Client, create_app
from workers.gateway.gate import Gate
from workers.gateway.keys import Keys
from workers.gateway.limits import Allowance
from workers.gateway.problems import Problem
from workers.settings import Gateway

KEY, OTHER, SECOND = "a" * 32, "b" * 32, "c" * 32


class Body(BaseModel):
    stream: StrictBool = False


class Site:
    """An application with three routes, its gate, and a stream that goes on when the test lets it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        (folder / "shop").write_text(f"{KEY}\n\n  {SECOND} \n")
        (folder / "other").write_text(OTHER)
        keys = [
            {"name": "shop", "tenant": "acme", "file": folder / "shop", "max_concurrent": 1},
            {"name": "other", "tenant": "umbrella", "file": folder / "other"},
        ]
        self.settings = Gateway.model_validate({"keys": keys, **settings})
        self.gate = Gate(Keys(self.settings))
        self.go_on = asyncio.Event()
        router = APIRouter()

        @router.post("/v1/who")
        async def who(client: Client, body: Body) -> dict[str, Any]:
            return {"tenant": client.tenant, "stream": body.stream}

        @router.get("/v1/stream")
        async def stream(_: Client) -> StreamingResponse:
            async def parts() -> AsyncIterator[str]:
                yield "data: one\n\n"
                await self.go_on.wait()
                yield "data: [DONE]\n\n"

            return StreamingResponse(parts(), media_type="text/event-stream")

        @router.get("/v1/problem")
        async def problem(_: Client) -> None:
            raise Problem(503, "later", code="busy", retry_after_s=0.2)

        self.app = create_app(self.settings, self.gate, [router])

    def client(self, key: str | None = KEY) -> httpx.AsyncClient:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app), base_url="http://gateway", headers=headers, timeout=10
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    (error,) = answer.json().values()
    assert set(error) == {"message", "type", "param", "code"}
    assert len(error["message"]) > 4
    return dict(error)


@pytest.mark.parametrize(("key", "tenant"), [(KEY, "acme"), (SECOND, "acme"), (OTHER, "umbrella")])
async def test_each_key_gives_its_tenant(site: Site, key: str, tenant: str) -> None:
    async with site.client(key) as client:
        answer = await client.post("/v1/who", json={})
    assert (answer.status_code, answer.json()["tenant"]) == (200, tenant)


@pytest.mark.parametrize(
    "header", [None, "", KEY, f"Basic {KEY}", f"Bearer {KEY}x", "Bearer ", f"Bearer {KEY.upper()}"]
)
@pytest.mark.parametrize("path", ["/v1/who", "/openapi.json", "/nothing"])
async def test_without_a_valid_key_every_path_is_refused(site: Site, header: str | None, path: str) -> None:
    async with site.client(None) as client:
        answer = await client.post(path, json={}, headers={} if header is None else {"Authorization": header})
    assert (answer.status_code, error_of(answer)["code"]) == (401, "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "param"),
    [
        ("POST", "/v1/who", b"{", 400, None),
        ("POST", "/v1/who", b"", 400, None),
        ("POST", "/v1/who", b'{"stream": 0}', 400, "stream"),
        ("POST", "/v1/who", b'"' + b"x" * 2_000 + b'"', 413, None),
        ("GET", "/v1/who", b"", 405, None),
        ("GET", "/v1/nothing", b"", 404, None),
        ("GET", "/v1/problem", b"", 503, None),
    ],
)
async def test_every_error_has_the_shape_of_openai(
    tmp_path: Path, method: str, path: str, content: bytes, status: int, param: str | None
) -> None:
    site = Site(tmp_path, max_body_bytes=1_024)
    async with site.client() as client:
        answer = await client.request(method, path, content=content, headers={"Content-Type": "application/json"})
    error = error_of(answer)
    assert (answer.status_code, error["param"]) == (status, param)
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)


async def test_a_body_without_a_length_is_limited_too(tmp_path: Path) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 100

    site = Site(tmp_path, max_body_bytes=1_024)
    async with site.client() as client:
        answer = await client.post("/v1/who", content=parts(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert "gateway.max_body_bytes" in error_of(answer)["message"]


async def test_a_stream_counts_until_its_end_and_a_further_request_is_refused(site: Site) -> None:
    limited = limited_so_far()
    async with site.client() as client, site.client(OTHER) as other:
        stream = asyncio.create_task(client.get("/v1/stream"))
        await until(lambda: site.gate.in_flight == 1)
        refused = await client.post("/v1/who", json={})
        assert (refused.status_code, error_of(refused)["code"]) == (429, "rate_limit_exceeded")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await other.post("/v1/who", json={})).status_code == 200
        site.go_on.set()
        assert (await stream).text.endswith("[DONE]\n\n")
        assert site.gate.in_flight == 0
        assert (await client.post("/v1/who", json={})).status_code == 200
    assert limited_so_far() - limited == 1


async def test_a_client_that_goes_away_frees_its_place(site: Site) -> None:
    async with site.client() as client:
        stream = asyncio.create_task(client.get("/v1/stream"))
        await until(lambda: site.gate.in_flight == 1)
        stream.cancel()
        await asyncio.wait([stream])
        await until(lambda: site.gate.in_flight == 0)
        assert (await client.post("/v1/who", json={})).status_code == 200


async def test_a_closed_gate_ends_what_is_in_flight_and_lets_nothing_in(site: Site) -> None:
    async with site.client() as client, site.client(OTHER) as other:
        stream = asyncio.create_task(client.get("/v1/stream"))
        await until(lambda: site.gate.in_flight == 1)
        site.gate.close()
        empty = asyncio.create_task(site.gate.empty())
        refused = await other.post("/v1/who", json={})
        assert (refused.status_code, error_of(refused)["code"]) == (503, "draining")
        assert not empty.done()
        site.go_on.set()
        assert (await stream).status_code == 200
        await asyncio.wait_for(empty, 10)


async def test_requests_a_minute_are_limited_by_client(tmp_path: Path) -> None:
    site = Site(tmp_path, requests_per_minute=3)
    async with site.client() as client, site.client(SECOND) as second, site.client(OTHER) as other:
        answers = [(await one.post("/v1/who", json={})).status_code for one in (client, second, client, client)]
        assert answers == [200, 200, 200, 429]
        assert (await other.post("/v1/who", json={})).status_code == 200


def limited_so_far() -> float:
    return REGISTRY.get_sample_value("guardline_gateway_limited_total", {"limit": "concurrent"}) or 0


async def test_requests_are_counted_by_route_and_status(site: Site) -> None:
    def counted(route: str, status: str) -> float:
        labels = {"route": route, "status": status}
        return REGISTRY.get_sample_value("guardline_gateway_requests_total", labels) or 0

    before = [counted("/v1/who", "200"), counted("other", "404"), counted("other", "401")]
    async with site.client() as client:
        await client.post("/v1/who", json={})
        await client.get("/v1/a-name-that-a-client-chose")
    async with site.client(None) as stranger:
        await stranger.post("/v1/who", json={})
    assert [counted("/v1/who", "200"), counted("other", "404"), counted("other", "401")] == [one + 1 for one in before]


@given(
    per_minute=st.integers(1, 600),
    waits=st.lists(st.floats(0, 30), max_size=60),
)
def test_an_allowance_never_lets_more_through_than_a_minute_and_its_refill(per_minute: int, waits: list[float]) -> None:
    allowance, now, taken = Allowance(per_minute, 0), 0.0, 0
    for wait_s in waits:
        now += wait_s
        left_s = allowance.take(now)
        taken += not left_s
        assert left_s <= 60 / per_minute + 1e-6
        assert taken <= per_minute * (1 + now / 60) + 1e-6


def test_after_the_wait_that_is_named_the_next_request_passes() -> None:
    allowance = Allowance(2, 0)
    assert [allowance.take(0), allowance.take(0)] == [0, 0]
    wait_s = allowance.take(0)
    assert wait_s == pytest.approx(30)
    assert allowance.take(wait_s) == 0
    assert allowance.take(wait_s) > 0


def test_an_open_gateway_serves_everybody_as_its_tenant(tmp_path: Path) -> None:
    keys = Keys(Gateway(open="acme"))
    assert [caller and caller.tenant for caller in map(keys.caller, (None, "Bearer anything"))] == ["acme", "acme"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "gateway.keys: shop: cannot read"),
        ("", "is empty"),
        ("too short", "holds a key of fewer than 32 characters"),
    ],
)
def test_a_key_that_cannot_be_used_is_refused_without_showing_it(
    tmp_path: Path, content: str | None, sentence: str
) -> None:
    file = tmp_path / "shop"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Misconfigured, match=sentence) as refused:
        Keys(Gateway.model_validate({"keys": [{"name": "shop", "tenant": "acme", "file": file}]}))
    assert "too short" not in str(refused.value)


def test_two_clients_cannot_have_the_same_key(tmp_path: Path) -> None:
    keys = []
    for name in ("a", "b"):
        (tmp_path / name).write_text(KEY)
        keys.append({"name": name, "tenant": name, "file": tmp_path / name})
    with pytest.raises(Misconfigured, match=r"gateway\.keys: two files hold the same key: give everybody a key"):
        Keys(Gateway.model_validate({"keys": keys}))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"keys": [{"name": "a", "tenant": "t", "file": "relative"}]}, "absolute path"),
        ({"keys": [{"name": "a b", "tenant": "t", "file": "/x"}]}, "a name has letters"),
        ({"keys": 2 * [{"name": "a", "tenant": "t", "file": "/x"}]}, "a is there twice"),
        ({"keys": [{"name": "a", "tenant": "t", "file": "/x"}], "open": "t"}, "set one of the two"),
        ({"upstream": {"url": "ftp://host"}}, "gateway.upstream.url: has to begin with"),
        ({"upstream": {"url": "http://host", "key_file": "relative"}}, "gateway.upstream.key_file"),
    ],
)
def test_contradictory_settings_are_refused_with_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Gateway.model_validate(changes)
