"""Refuses requests that are too large before they are read into memory. For workers with an API."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Middleware that counts the bytes of each body.

    `setting` names the limit. `answer` makes the response of a status and a sentence.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, setting: str, answer: Callable[[int, str], Response]) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._sentence = f"the request is larger than {setting} ({max_bytes})"
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count the bytes of its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._max_bytes:
            await self._answer(413, self._sentence)(scope, receive, send)
            return
        await self._app(scope, self._limited(receive), send)

    def _limited(self, receive: Receive) -> Callable[[], Awaitable[Message]]:
        """Give the parts of a body whose length the client did not say, as long as they are within the limit."""
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                raise HTTPException(413, self._sentence)
            return message

        return counted
