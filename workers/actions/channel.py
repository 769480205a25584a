"""All that serves one endpoint in a worker: its Kafka thread, its sender, its client and its secrets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

import structlog

from workers.actions.authors import is_forgotten
from workers.actions.client import Client
from workers.actions.delivery import Delivery
from workers.actions.formats import format_of
from workers.actions.letters import Letters
from workers.actions.reading import Reading
from workers.actions.route import route_of
from workers.actions.secrets import Secrets
from workers.actions.sender import Sender
from workers.core.forgotten import Forgotten
from workers.kafka import hang_watch, topics
from workers.kafka.clients import LOOK_S
from workers.kafka.decoding import Decoding
from workers.kafka.loop import LEAVE_S, KafkaThread
from workers.process.lifecycle import Lifecycle
from workers.settings import Settings
from workers.settings.action_sections import Endpoint

log = structlog.get_logger(__name__)

GONE = (
    "the endpoint answered 410 Gone: its deliveries become dead letters without further calls, until the worker is "
    "started again"
)

IDLE_S = 0.05
"""How often a drain looks whether anything can still be delivered."""


class Channel:
    """One endpoint. The channels of a process share nothing but its event loop and its CPU."""

    def __init__(self, endpoint: Endpoint, settings: Settings, forgotten: Forgotten) -> None:
        """Read the files of the endpoint. `forgotten`: the authors to whom no delivery may belong, as it grows.

        Raises:
            Misconfigured: a file cannot be used.
        """
        self.endpoint = endpoint
        self._settings = settings
        self._secrets = Secrets(endpoint)
        self._format = format_of(endpoint, self._secrets, settings.events.carry_attributes)
        self._forgotten = forgotten
        self._client = Client(endpoint, self._format.answer_bytes)
        self._letters = Letters(endpoint, settings.topics.deliveries)
        self._draining = asyncio.Event()

    async def start(self, life: Lifecycle, ended: Callable[[BaseException | None], None]) -> None:
        """Make the parts, and read. `ended` is called in the Kafka thread when that ends, with the cause.

        Raises:
            Unavailable, Misconfigured, Fatal: see `workers.kafka.topics.check`.
        """
        settings, endpoint = self._settings, self.endpoint
        route = route_of(endpoint, settings)
        checked = await life.wait_for(lambda: asyncio.to_thread(topics.check, route, LOOK_S))
        await self._client.__aenter__()
        life.close_with(self._client.close)
        self._kafka: KafkaThread[Delivery] = await life.wait_for(
            lambda: asyncio.to_thread(
                KafkaThread,
                route,
                checked,
                decode=Decoding(route.dead_letters, Reading(endpoint, settings.topics, self._format)),
                submit=life.from_thread(lambda deliveries: self._sender.submit(deliveries)),
                ended=ended,
            )
        )
        self._sender = Sender(
            endpoint,
            self._format,
            self._client,
            ended=self._deliver,
            is_current=self._kafka.is_current,
            is_forgotten=partial(is_forgotten, self._forgotten),
            gone=partial(log.error, GONE, endpoint=endpoint.name),
            fail=life.end,
        )
        life.close_with(self._sender.close)
        self._kafka.start()
        life.close_with(self._kafka.close, within_s=LEAVE_S)
        life.watch(hang_watch.watch(self._kafka, route.kafka))
        life.watch(self._secrets.watch())
        life.watch(self._end_a_drain())

    def drain(self) -> None:
        """Read nothing more, deliver what was read, and commit. What has failed is not tried again."""
        self._kafka.stop(self._settings.worker.grace_s)
        self._draining.set()

    @property
    def left(self) -> int:
        """The records that were read and not committed."""
        return self._kafka.left

    def _deliver(self, delivery: Delivery, reason: str | None) -> None:
        self._kafka.deliver([self._letters.finished(delivery, reason, time.time())])

    async def _end_a_drain(self) -> None:
        """Let the Kafka thread end as soon as nothing can be delivered without another attempt of what failed."""
        await self._draining.wait()
        while True:
            await asyncio.sleep(IDLE_S)
            if self._sender.is_idle:
                break
        self._kafka.stop(0)
