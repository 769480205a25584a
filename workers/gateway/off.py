"""The routes that are off by the settings: they answer 404 and name the setting. No OpenAPI document lists them."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Request

from workers.gateway.problems import Problem

GUARD_PATHS = ("/v1/moderations", "/v1/classify", "/v1/modelspecs", "/v1/reward")
NO_GUARD = "gateway.guard_routes is false, so this gateway is only a proxy"

PROXY_PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/models/{model:path}")
NO_PROXY = "gateway.upstream.url is not set, so this gateway passes nothing on to a model server"


def off(paths: Iterable[str], reason: str) -> APIRouter:
    """Make routes that are refused. `reason` says which setting has to change."""
    router = APIRouter()

    async def refuse(request: Request) -> None:
        raise Problem(404, f"{request.url.path} is off: {reason}", code="route_off")

    for path in paths:
        router.add_api_route(path, refuse, methods=["GET", "POST"], include_in_schema=False)
    return router
