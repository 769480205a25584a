"""What a client is told if its request fails: an HTTP status, and an error in OpenAI's shape."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from workers.errors import GuardlineError

if TYPE_CHECKING:
    from starlette.responses import Response

INVALID, SERVER, LIMIT = "invalid_request_error", "server_error", "requests"
"""The types of OpenAI's errors. Its client tells errors apart by their status."""


class ErrorBody(BaseModel):
    """Why a request failed."""

    message: str
    type: str
    param: str | None = None
    """The part of the request that is at fault, such as `input.1`."""
    code: str | None = None


class ErrorAnswer(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorBody


class Problem(GuardlineError):
    """A request fails. Nothing of it was judged, and nothing was passed on, unless the code says otherwise."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = ErrorBody(
            message=message, type=kind or (SERVER if status >= 500 else INVALID), param=param, code=code
        )
        self.headers: dict[str, str] = {}
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))

    def answer(self) -> Response:
        """Give the response."""
        from starlette.responses import Response  # Without the extra, the gateway says what is missing.

        # In ASCII: a message may quote half of a surrogate pair.
        return Response(json.dumps(self.document()), self.status, self.headers, "application/json")

    def document(self) -> dict[str, Any]:
        """Give the body, also for an event of a stream that has begun."""
        return ErrorAnswer(error=self.body).model_dump()


REASONS = {
    400: "A part of the request breaks this contract, or the body is not JSON.",
    401: "There is no key, or it is not valid.",
    404: "There is no such model.",
    413: "The request is larger than `gateway.max_body_bytes`.",
    429: "The client has reached a limit. `Retry-After` says when to send the request again.",
    502: "The model server behind the gateway failed.",
    503: "The engine did not answer in time, or the gateway ends. Nothing was judged. Send the request again.",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Give the errors of a route for the OpenAPI document: those that every route has, and these."""
    return {
        status: {"model": ErrorAnswer, "description": REASONS[status]}
        for status in sorted({400, 401, 413, 429, 503, *statuses})
    }
