"""Serves /livez, /readyz and /metrics over HTTP, in the worker's event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from workers.errors import Misconfigured
from workers.settings import Http

log = structlog.get_logger(__name__)


@asynccontextmanager
async def served(http: Http, *, is_alive: Callable[[], bool], is_ready: Callable[[], bool]) -> AsyncIterator[int]:
    """Serve until the block ends; yield the port.

    Raises:
        Misconfigured: the port is taken.
    """

    def answer(check: Callable[[], bool]) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(_: web.Request) -> web.Response:
            return web.Response(text="ok\n") if check() else web.Response(text="no\n", status=503)

        return handle

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [web.get("/livez", answer(is_alive)), web.get("/readyz", answer(is_ready)), web.get("/metrics", metrics)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, http.host, http.port)
        try:
            await site.start()
        except OSError as error:
            raise Misconfigured(
                f"http.host and http.port: cannot listen on {http.host}:{http.port} ({error.strerror}); "
                "port 0, or --http-port 0, takes any free one"
            ) from error
        port = int(runner.addresses[0][1])
        log.info("serving /livez, /readyz, /metrics", port=port)
        yield port
    finally:
        await runner.cleanup()
