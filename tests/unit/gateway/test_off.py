"""Routes that are off by the settings."""

from __future__ import annotations

import httpx
import pytest

from workers.gateway.application import create_app
from workers.gateway.gate import Gate
from workers.gateway.keys import Keys
from workers.gateway.off import GUARD_PATHS, NO_GUARD, NO_PROXY, PROXY_PATHS, off
from workers.gateway.openapi import document
from workers.settings import Gateway


@pytest.mark.parametrize(
    ("method", "path", "setting"),
    [
        *[("POST", path, "gateway.guard_routes") for path in GUARD_PATHS],
        ("GET", "/v1/modelspecs", "gateway.guard_routes"),
        ("POST", "/v1/chat/completions", "gateway.upstream.url"),
        ("POST", "/v1/completions", "gateway.upstream.url"),
        ("GET", "/v1/models", "gateway.upstream.url"),
        ("GET", "/v1/models/owner/name", "gateway.upstream.url"),
    ],
)
async def test_a_route_that_is_off_names_its_setting(method: str, path: str, setting: str) -> None:
    gateway = Gateway(open="acme")
    app = create_app(gateway, Gate(Keys(gateway)), [off(GUARD_PATHS, NO_GUARD), off(PROXY_PATHS, NO_PROXY)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        answer = await client.request(method, path, content=b"no JSON")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (404, "route_off", "invalid_request_error")
    assert error["message"].startswith(f"{path} is off: {setting}")
    assert app.openapi()["paths"] == {}


def test_every_path_of_the_contract_can_be_off() -> None:
    can_be_off = {path.replace(":path}", "}") for path in (*GUARD_PATHS, *PROXY_PATHS)}
    assert can_be_off == set(document()["paths"])


def test_a_gateway_without_any_route_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gateway\.guard_routes is false, and gateway\.upstream\.url is not set"):
        Gateway(guard_routes=False)
