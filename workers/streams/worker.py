"""The streams worker: makes the parts and wires them. The lifecycle starts and ends them in order."""

from __future__ import annotations

import asyncio

import structlog

from workers import telemetry
from workers.kafka import hang_watch, topics
from workers.kafka.clients import LOOK_S
from workers.kafka.decoding import Decoding
from workers.kafka.loop import LEAVE_S, KafkaThread
from workers.live.guard import LiveGuard
from workers.live.load import load_live_guard
from workers.policy.policy import default_strict
from workers.process.lifecycle import Lifecycle
from workers.redis.policy_cache import PolicyCache
from workers.settings import Settings
from workers.streams.outputs import Outputs, shrunk
from workers.streams.reading import Item, Reading
from workers.streams.route import check_retention, of_streams
from workers.streams.stream import Limits
from workers.streams.streams import Streams
from workers.streams.takeover import Log, Sessions

log = structlog.get_logger(__name__)


class Worker:
    """One process of the streams group.

    `run` returns after a drain. It raises `Misconfigured` or `Unavailable` at start and `Fatal` later, each with a
    sentence.
    """

    def __init__(self, settings: Settings, guard: LiveGuard | None = None) -> None:
        self._settings = settings
        self._guard = guard

    async def run(self) -> None:
        """Start everything, run until a signal, drain."""
        settings, route = self._settings, of_streams(self._settings)
        async with Lifecycle(settings.http, start_within_s=settings.worker.start_within_s) as life:
            guard = self._guard or load_live_guard(settings.streams)
            checked = await life.wait_for(lambda: asyncio.to_thread(topics.check, route, LOOK_S))
            await life.wait_for(lambda: asyncio.to_thread(check_retention, settings))
            policies = PolicyCache(settings.redis)
            await life.start(policies)
            telemetry.REDIS_UP.set_function(lambda: policies.healthy)
            await life.start(guard)
            decode = Decoding(route.dead_letters, Reading(settings.events))
            kafka: KafkaThread[Item] = await life.wait_for(
                lambda: asyncio.to_thread(
                    KafkaThread,
                    route,
                    checked,
                    decode=decode,
                    submit=life.from_thread(lambda items: streams.submit(items)),
                    ended=life.from_thread(life.end),
                    shrink=shrunk,
                )
            )
            limits = settings.streams
            streams = Streams(
                guard,
                Outputs(settings.topics, settings.worker.pipeline, frozenset(settings.events.carry_headers)),
                limits=Limits(limits.idle_s * 1000, limits.max_age_s * 1000),
                max_open=limits.max_open,
                policies=policies.snapshot,
                default_policy=default_strict(),
                read_sessions=Sessions(settings).read,
                read_items=Log(route.kafka, decode).items,
                is_current=kafka.is_current,
                deliver=kafka.deliver,
                fail=life.end,
                hangs_after_s=settings.worker.engine_hangs_after_s,
            )
            kafka.start()
            life.close_with(kafka.close, within_s=LEAVE_S)
            life.watch(hang_watch.watch(kafka, route.kafka))
            life.watch(streams.watch())
            log.info("worker started", worker=settings.worker.id, group=route.group, engine=guard.identity)
            await life.run(drain=lambda: kafka.stop(settings.worker.grace_s), left=lambda: kafka.left)
