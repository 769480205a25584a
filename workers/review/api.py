"""The HTTP API of the review worker: reads requests, asks the service, and writes answers. See docs/review.md."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException as AnyHttpException

from schemas.event import Turn
from workers.process.body_limit import BodyLimit
from workers.review.bodies import (
    AppealBody,
    DecideBody,
    ErrorAnswer,
    Key,
    LeasesAnswer,
    NextBody,
    QueuesAnswer,
    ReopenBody,
)
from workers.review.people import Person, Tokens
from workers.review.refusal import Refusal
from workers.review.service import Service
from workers.review.views import ItemView, LeaseView

DESCRIPTION = """\
People decide review items, and every decision becomes a superseding verdict in Kafka, once. An answer means that the
change is stored. Send a request again with the same `Idempotency-Key` if no answer comes: it takes effect once.
All times are in milliseconds since 1970-01-01 UTC."""

REASONS = {
    400: "The body is not JSON.",
    401: "There is no token, or it is not valid.",
    403: "The role of the token may not do this.",
    404: "The worker does not know the item, or the token does not show it.",
    409: "The state of the item does not permit this. `by` and `at` say who was first, and when.",
    413: "The request, or the state of the item after it, is too large.",
    422: "A part of the request breaks this contract.",
    503: "Kafka did not store the change in time, or the worker ends. Send the request again with the same key.",
}


def create_app(service: Service, tokens: Tokens, *, max_body_bytes: int) -> FastAPI:
    """Make the application."""
    app = FastAPI(
        title="Guardline review",
        version="1.0.0",
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes, setting="review.max_body_bytes", answer=_answer)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(AnyHttpException, _failed)
    app.state.service, app.state.tokens = service, tokens
    app.include_router(router)
    return app


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": ErrorAnswer, "description": REASONS[status]}
        for status in sorted({401, 403, 413, 422, *statuses})
    }


async def service_of(request: Request) -> Service:
    """Give the service of the application."""
    service: Service = request.app.state.service
    return service


async def authenticated(
    request: Request,
    credentials: Annotated[
        HTTPAuthorizationCredentials | None,
        Depends(HTTPBearer(auto_error=False, description="A token of `review.tokens`.")),
    ],
) -> Person:
    """Give the person whose token the request has."""
    tokens: Tokens = request.app.state.tokens
    person = None if credentials is None else tokens.person(credentials.credentials)
    if person is None:
        sentence = "send a valid token of review.tokens as `Authorization: Bearer TOKEN`"
        raise HTTPException(401, sentence, {"WWW-Authenticate": "Bearer"})
    return person


Who = Annotated[Person, Depends(authenticated)]
Desk = Annotated[Service, Depends(service_of)]
Item = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="The id of the item, or of its newest verdict.")]
Once = Annotated[Key | None, Header(alias="Idempotency-Key")]

NO_WISH, NO_NOTE = NextBody(), ReopenBody()

router = APIRouter()


@router.post(
    "/v1/next", response_model=ItemView, responses={204: {"description": "No item waits."}, **_errors(400, 409, 503)}
)
async def take_next(who: Who, service: Desk, body: NextBody = NO_WISH, key: Once = None) -> Any:
    """Take the item whose turn it is, on lease."""
    item = await service.next(who, key, body.tenants, body.languages)
    return Response(status_code=204) if item is None else item


@router.get("/v1/items/{verdict_id}", responses=_errors(404, 503))
async def get_item(who: Who, service: Desk, verdict_id: Item) -> ItemView:
    """Read an item. An audit record says that the person has seen its content."""
    return await service.item(who, verdict_id)


@router.post("/v1/items/{verdict_id}/lease", responses=_errors(404, 409, 503))
async def lease(who: Who, service: Desk, verdict_id: Item, key: Once = None) -> ItemView:
    """Take this item, on lease."""
    return await service.lease(who, verdict_id, key)


@router.post("/v1/items/{verdict_id}/heartbeat", responses=_errors(404, 409))
async def heartbeat(who: Who, service: Desk, verdict_id: Item) -> LeaseView:
    """Keep a lease: its time begins anew."""
    return service.beat(who, verdict_id)


@router.post("/v1/items/{verdict_id}/decide", responses=_errors(400, 404, 409, 503))
async def decide(who: Who, service: Desk, verdict_id: Item, body: DecideBody, key: Once = None) -> ItemView:
    """Decide."""
    return await service.decide(
        who,
        verdict_id,
        body.decision,
        note=body.note,
        severity=body.severity,
        categories=None if body.categories is None else [*body.categories],
        key=key,
        on_behalf_of=body.person,
    )


@router.post("/v1/items/{verdict_id}/undo", responses=_errors(404, 409, 503))
async def undo(who: Who, service: Desk, verdict_id: Item, key: Once = None) -> ItemView:
    """Take the own decision back, within `review.undo_s`."""
    return await service.undo(who, verdict_id, key)


@router.post("/v1/items/{verdict_id}/skip", responses=_errors(404, 409, 503))
async def skip(who: Who, service: Desk, verdict_id: Item, key: Once = None) -> ItemView:
    """Leave the item to others."""
    return await service.skip(who, verdict_id, key)


@router.post("/v1/items/{verdict_id}/release", responses=_errors(404, 409, 503))
async def release(who: Who, service: Desk, verdict_id: Item, key: Once = None) -> ItemView:
    """Give the item back."""
    return await service.release(who, verdict_id, key)


@router.post("/v1/items/{verdict_id}/reopen", responses=_errors(400, 404, 409, 503))
async def reopen(who: Who, service: Desk, verdict_id: Item, body: ReopenBody = NO_NOTE, key: Once = None) -> ItemView:
    """Put a decided item back into the queue."""
    return await service.reopen(who, verdict_id, body.note, key)


@router.post("/v1/appeals", responses=_errors(400, 404, 409, 413, 503))
async def appeal(who: Who, service: Desk, body: AppealBody, key: Once = None) -> ItemView:
    """Appeal against the newest verdict on an event. Somebody else than before decides."""
    return await service.appeal(
        who,
        body.verdict_id,
        body.reason,
        verdict=body.verdict,
        record_key=body.key,
        text=body.text,
        context=[Turn(role=turn.role, text=turn.text) for turn in body.context],
        key=key,
    )


@router.get("/v1/queues", responses=_errors())
async def queues(who: Who, service: Desk) -> QueuesAnswer:
    """Count the waiting items by tenant and language. The counts may be a second old."""
    return QueuesAnswer(queues=service.queues(who))


@router.get("/v1/leases", responses=_errors())
async def leases(who: Who, service: Desk) -> LeasesAnswer:
    """List the items that the person has on lease."""
    return LeasesAnswer(items=service.leases(who))


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return _answer(error.status, error.sentence, by=error.by, at=error.at_ms)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _answer(400, "the body is not JSON")
    if tuple(first["loc"]) == ("body",):
        return _answer(422, NO_BODY)
    where = ".".join(str(part) for part in first["loc"])
    return _answer(422, f"{where}: {first['msg'].removeprefix('Value error, ')}")


NO_BODY = "send a JSON object as the body, with the header `Content-Type: application/json`"


async def _failed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AnyHttpException)
    answer = _answer(error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    return answer


def _answer(status: int, sentence: str, *, by: str | None = None, at: int | None = None) -> JSONResponse:
    return JSONResponse(ErrorAnswer(detail=sentence, by=by, at=at).model_dump(), status)
