"""The actions worker: delivers verdicts and signals to the endpoints of the settings."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import structlog

from workers.actions.channel import Channel
from workers.errors import Misconfigured
from workers.kafka.forgetting import Requests
from workers.process.lifecycle import Lifecycle
from workers.settings import Settings

log = structlog.get_logger(__name__)


class Worker:
    """One process of the actions groups: it has a member in the group of each endpoint.

    `run` returns after a drain. It raises `Misconfigured` or `Unavailable` at start and `Fatal` later, each with a
    sentence.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def run(self) -> None:
        """Start everything, run until a signal, drain."""
        settings = self._settings
        if not settings.actions.endpoints:
            raise Misconfigured("actions.endpoints is empty: name at least one endpoint, as in docs/actions.md")
        async with Lifecycle(settings.http, start_within_s=settings.worker.start_within_s) as life:
            requests = Requests(settings)
            channels = [Channel(endpoint, settings, requests.known) for endpoint in settings.actions.endpoints]
            await life.wait_for(lambda: asyncio.to_thread(requests.read))
            life.watch(_follow(requests))
            ended = life.from_thread(_after(len(channels), life.end))
            for channel in channels:
                await channel.start(life, ended)
            log.info(
                "worker started",
                worker=settings.worker.id,
                group=settings.kafka.group,
                endpoints=[channel.endpoint.name for channel in channels],
            )

            def drain() -> None:
                for channel in channels:
                    channel.drain()

            await life.run(drain=drain, left=lambda: sum(channel.left for channel in channels))


async def _follow(requests: Requests) -> None:
    """Take requests to forget as they are written. Each process reads all: its deliveries are of any partition."""
    is_over = threading.Event()
    try:
        await asyncio.to_thread(requests.read, until=is_over.is_set)
    finally:
        is_over.set()


def _after(count: int, end: Callable[[BaseException | None], None]) -> Callable[[BaseException | None], None]:
    """Return a function that calls `end` at its call number `count`, or at the first one with an error."""
    left = count

    def one_ended(error: BaseException | None) -> None:
        nonlocal left
        left -= 1
        if error is not None or left == 0:
            end(error)

    return one_ended
