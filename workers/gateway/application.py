"""The application that the gateway serves: what all routes share, and the routes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from workers.gateway.gate import Admission, Gate
from workers.gateway.keys import Caller
from workers.gateway.problems import Problem
from workers.process.body_limit import BodyLimit
from workers.settings import Gateway

DESCRIPTION = """\
Moderation by HTTP: the API of OpenAI's moderation, the API of ROOST's Pigeon, and a proxy for model servers. All errors
have OpenAI's shape."""


async def caller_of(request: Request) -> Caller:
    """Give the client that makes a request, as the gate found it."""
    caller: Caller = request.state.caller
    return caller


Client = Annotated[Caller, Depends(caller_of)]
"""The parameter by which a route gets its client."""

_DOCUMENTED = Depends(HTTPBearer(auto_error=False, description="A key of `gateway.keys`."))
"""The gate has checked the key before: this only makes the OpenAPI document say that there is one."""


def create_app(settings: Gateway, gate: Gate, routers: Iterable[APIRouter]) -> FastAPI:
    """Make the application of these routes. A route raises `Problem`, and takes its client as `Client`."""
    app = _Application(
        title="Guardline gateway",
        version="1.0.0",
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # A redirect would name the host that the client named.
        separate_input_output_schemas=False,
    )
    app.add_middleware(
        BodyLimit, max_bytes=settings.max_body_bytes, setting="gateway.max_body_bytes", answer=_too_large
    )
    # Added last, so that it comes first.
    app.add_middleware(Admission, gate=gate)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _failed)
    app.add_exception_handler(Exception, _broken)
    for router in routers:
        app.include_router(router, dependencies=[_DOCUMENTED])
    return app


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Leave out the status 422, which FastAPI adds to every route: invalid requests get 400, as at OpenAI."""
        document = super().openapi()
        for methods in document["paths"].values():
            for operation in methods.values():
                operation["responses"].pop("422", None)
        for unused in ("HTTPValidationError", "ValidationError"):
            document.get("components", {}).get("schemas", {}).pop(unused, None)
        return document


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.answer()


NO_BODY = "send a JSON object as the body, with the header `Content-Type: application/json`"


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return Problem(400, "the body is not JSON").answer()
    if tuple(first["loc"]) == ("body",):
        return Problem(400, NO_BODY).answer()
    param = ".".join(str(part) for part in first["loc"] if part != "body")
    return Problem(400, f"{param}: {first['msg'].removeprefix('Value error, ')}", param=param).answer()


async def _failed(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = Problem(error.status_code, error.detail).answer()
    answer.headers.update(error.headers or {})
    return answer


async def _broken(_: Request, error: Exception) -> Response:
    """Answer where the gateway has a fault. uvicorn logs it."""
    return Problem(500, "the gateway failed", code="internal_error").answer()


def _too_large(status: int, sentence: str) -> Response:
    return Problem(status, sentence).answer()
