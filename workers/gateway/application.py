"""The application that the gateway serves: what all routes share, and the routes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.security import HTTPBearer
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException

from workers.gateway.failures import Failures
from workers.gateway.gate import Admission, Gate, route_of
from workers.gateway.keys import Caller
from workers.gateway.problems import Problem
from workers.process.body_limit import BodyLimit
from workers.refusals import in_words
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


def create_app(
    settings: Gateway, gate: Gate, routers: Iterable[APIRouter], failures: Failures | None = None
) -> FastAPI:
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
    failures = failures or Failures()

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        failures.note(error, route_of(request.scope), time.monotonic())
        return error.answer()

    app.add_exception_handler(Problem, problem)
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


NO_BODY = "send a JSON object as the body, with the header `Content-Type: application/json`"
NO_PATH = "there is no such path: GET /openapi.json lists the paths of this gateway, which begin with /v1"


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return Problem(400, "the body is not JSON").answer()
    if tuple(first["loc"]) == ("body",) and first["type"] != "value_error":
        return Problem(400, NO_BODY).answer()
    param, sentence = _first_fault(error.errors())
    return Problem(400, f"{param}: {sentence}" if param else sentence, param=param or None).answer()


def _first_fault(errors: Sequence[ErrorDetails]) -> tuple[str, str]:
    """Name a field and what is wrong with it.

    A field that takes several types has errors for each of them: those that read most of the field come closest to what
    the client meant. A check of the whole body names its field itself.
    """
    found = [(error, [part for part in error["loc"] if part != "body" and not _is_type(part)]) for error in errors]
    field = found[0][1][:1]
    deepest = max((path for _, path in found if path[:1] == field), key=len)
    here = [error for error, path in found if path == deepest]
    of_value = [error for error in here if not error["type"].endswith("_type")]
    sentences = dict.fromkeys(
        "there is no such field" if error["type"] == "extra_forbidden" else in_words(error)
        for error in of_value or here
    )
    return ".".join(map(str, deepest)), ", or ".join(sentences)


def _is_type(part: object) -> bool:
    """Whether a part of the place of an error is a type of a field that takes several."""
    return part == "str" or (isinstance(part, str) and part.startswith("list["))


async def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    sentence, headers = error.detail, error.headers or {}
    if (error.status_code, sentence) == (404, "Not Found"):
        sentence = NO_PATH
    elif error.status_code == 405:
        sentence = f"{request.method} is not the method of {request.url.path}: use {headers['Allow']}"
    answer = Problem(error.status_code, sentence).answer()
    answer.headers.update(headers)
    return answer


async def _broken(_: Request, error: Exception) -> Response:
    """Answer where the gateway has a fault. uvicorn logs it."""
    return Problem(500, "the gateway failed", code="internal_error").answer()


def _too_large(status: int, sentence: str) -> Response:
    return Problem(status, sentence).answer()
