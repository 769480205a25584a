"""The routes of the proxy."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from workers.gateway.application import Client
from workers.gateway.bodies import ChatBody, CompletionBody
from workers.gateway.problems import ErrorAnswer, documented
from workers.gateway.proxy import ModelProxy


class UpstreamAnswer(BaseModel):
    """An object of the API that the model server has: see its own documentation."""

    model_config = ConfigDict(extra="allow")


ANSWERED: dict[str, Any] = {
    "description": "The answer. With `stream: true` it is a stream of server-sent events.",
    "model": UpstreamAnswer,
    "content": {"text/event-stream": {}},
}
UNREACHED: dict[int | str, dict[str, Any]] = {
    502: {"model": ErrorAnswer, "description": "The model server is not reached, or its answer is not valid."},
    504: {"model": ErrorAnswer, "description": "The model server did not answer in time."},
}
OTHERS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The model server refuses the request."},
    "5XX": {"model": ErrorAnswer, "description": "The model server failed."},
}


def router(proxy: ModelProxy) -> APIRouter:
    """Make the routes."""
    made = APIRouter(tags=["proxy"])
    answers: dict[int | str, dict[str, Any]] = {**documented(404), **UNREACHED, **OTHERS}

    @made.post("/v1/chat/completions", responses={200: ANSWERED, **answers}, response_class=Response)
    async def create_chat_completion(request: Request, client: Client, body: ChatBody) -> Response:
        """Have the model server answer a conversation, and judge the prompt and the answer."""
        return await proxy.chat(request, body, client.tenant)

    @made.post("/v1/completions", responses={200: ANSWERED, **answers}, response_class=Response)
    async def create_completion(request: Request, client: Client, body: CompletionBody) -> Response:
        """Have the model server continue a text, and judge the text and what follows."""
        return await proxy.complete(request, body, client.tenant)

    @made.get("/v1/models", responses={200: {"model": UpstreamAnswer}, **answers}, response_class=Response)
    async def list_models(request: Request, _: Client) -> Response:
        """List the models of the model server."""
        return await proxy.models(request, "/v1/models")

    @made.get("/v1/models/{model:path}", responses={200: {"model": UpstreamAnswer}, **answers}, response_class=Response)
    async def get_model(request: Request, _: Client, model: Annotated[str, Path(pattern=MODEL)]) -> Response:
        """Describe a model of the model server."""
        return await proxy.models(request, f"/v1/models/{model}")

    return made


MODEL = r"^[A-Za-z0-9][A-Za-z0-9._:@-]*(/[A-Za-z0-9][A-Za-z0-9._:@-]*)*$"
"""The names of models: no other path of the model server can be reached by one."""
