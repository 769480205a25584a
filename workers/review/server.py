"""Serves the application by uvicorn in the worker's event loop. The lifecycle handles the signals."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from fastapi import FastAPI

from workers.errors import Misconfigured
from workers.settings import Review

log = structlog.get_logger(__name__)

BACKLOG = 128
KEEP_ALIVE_S = 30
FINISH_S = 3.0
"""How long requests in flight may take once the worker drains."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the lifecycle."""
        yield


class Server:
    """One listening socket, and the server behind it."""

    def __init__(self, app: FastAPI, listener: socket.socket) -> None:
        """Take a listening socket. Connections wait until `serve`."""
        self._socket = listener
        self.port = int(self._socket.getsockname()[1])
        self._server = _Server(
            uvicorn.Config(
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=int(FINISH_S),
                # A client cannot make the worker hold more than this many requests.
                limit_concurrency=1_000,
            )
        )
        self._ended = asyncio.Event()

    async def serve(self) -> None:
        """Answer requests until `stop`."""
        log.info("serving the review API", port=self.port)
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Take no more requests, and wait for those in flight, at most `FINISH_S`."""
        self._server.should_exit = True
        await self._ended.wait()


def listening(settings: Review) -> socket.socket:
    """Listen on the port of the API.

    Raises:
        Misconfigured: the port is taken, or this host has no such address.
    """
    try:
        family, *_, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise Misconfigured(
            f"review.host and review.port: cannot listen on {settings.host}:{settings.port} ({error.strerror}); port 0 "
            "takes any free one"
        ) from error
