"""Serves an application by uvicorn in the worker's event loop. The lifecycle handles the signals.

Only for workers with an API: it needs uvicorn, which is in the extras of these workers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from starlette.types import ASGIApp

from workers.errors import Misconfigured
from workers.process.write_limit import limited

log = structlog.get_logger(__name__)

BACKLOG = 128
KEEP_ALIVE_S = 30
FINISH_S = 3.0
"""How long requests in flight may take once the server stops."""
WRITE_S = 60.0
"""How long a client may take nothing of its answer."""
MAX_CONNECTIONS = 1_000
"""A client cannot make the worker hold more than this many connections, or requests, at a time."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the lifecycle."""
        yield


class Server:
    """One listening socket, and the server behind it."""

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        name: str,
        *,
        max_connections: int = MAX_CONNECTIONS,
        write_s: float = WRITE_S,
    ) -> None:
        """Take a listening socket. Connections wait until `serve`. `name` says in the log what is served."""
        self._name = name
        self._socket = listener
        self.port = int(self._socket.getsockname()[1])
        self._server = _Server(
            uvicorn.Config(
                app,
                http=limited(write_s),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=True,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=int(FINISH_S),
                limit_concurrency=max_connections,
            )
        )
        self._ended = asyncio.Event()

    async def serve(self) -> None:
        """Answer requests until `stop`."""
        log.info(f"serving {self._name}", port=self.port)
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Take no more requests, and wait for those in flight, at most `FINISH_S`."""
        self._server.should_exit = True
        await self._ended.wait()


def listening(host: str, port: int, section: str) -> socket.socket:
    """Listen on the port of the API. `section` has the settings `host` and `port`.

    Raises:
        Misconfigured: the port is taken, or this host has no such address.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise Misconfigured(
            f"{section}.host and {section}.port: cannot listen on {host}:{port} ({error.strerror}); port 0 takes any "
            "free one"
        ) from error
