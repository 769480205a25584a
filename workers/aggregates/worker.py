"""The aggregates worker: makes the parts and wires them. The lifecycle starts and ends them in order."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import structlog

from workers import telemetry
from workers.aggregates import folder
from workers.aggregates.strike_writer import StrikeWriter
from workers.errors import Misconfigured, to_install
from workers.kafka import internal_topics
from workers.kafka.clients import LOOK_S
from workers.kafka.forgetting import Requests
from workers.policy.document import DEFAULT
from workers.policy.strikes import CompiledStrikes
from workers.process.lifecycle import Lifecycle
from workers.redis import client as redis_client
from workers.redis.policy_cache import PolicyCache
from workers.redis.strikes import StoredStrikes
from workers.settings import Settings

if TYPE_CHECKING:
    from workers.aggregates.pipeline import Aggregation

log = structlog.get_logger(__name__)

STOP_S = 20.0


class Worker:
    """One process of the aggregates group.

    `run` returns after a drain. It raises `Misconfigured` or `Unavailable` at start and `Fatal` later, each with a
    sentence.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def run(self) -> None:
        """Start everything, run until a signal, drain."""
        settings = self._settings
        _log_through_structlog()
        async with Lifecycle(settings.http, start_within_s=settings.worker.start_within_s) as life:
            make = _imported()
            prepared = await life.wait_for(lambda: asyncio.to_thread(internal_topics.prepare, settings, LOOK_S))
            if settings.aggregates.folder is not None:
                await asyncio.to_thread(folder.claim, settings.aggregates.folder, prepared, settings.topics.verdicts)
            redis = await life.wait_for(lambda: redis_client.connect(settings.redis))
            life.close_with(redis.aclose)
            policies = PolicyCache(settings.redis)
            await life.start(policies)
            telemetry.REDIS_UP.set_function(lambda: policies.healthy)

            def rules_of(tenant: str) -> CompiledStrikes | None:
                snapshot = policies.snapshot()
                policy = snapshot.get(tenant) or snapshot.get(DEFAULT)
                return None if policy is None else policy.strikes

            requests = Requests(settings)
            await life.wait_for(lambda: asyncio.to_thread(requests.read))
            stored = StoredStrikes(redis, namespace=settings.redis.namespace, secret=settings.pseudonym_secret)
            strikes = StrikeWriter(stored)
            life.watch(strikes.write())
            life.close_with(strikes.close)
            aggregation = make(
                settings,
                prepared,
                rules_of=rules_of,
                strikes=strikes,
                fail=life.end,
                requests=requests,
            )
            life.close_with(aggregation.stop, within_s=STOP_S)
            await life.wait_for(aggregation.start)
            for work in (
                aggregation.watch(),
                aggregation.flush_often(),
                aggregation.upkeep.tick_often(),
                aggregation.upkeep.look_often(),
                aggregation.rewrite_after_outages(),
            ):
                life.watch(work)
            log.info("worker started", worker=settings.worker.id, group=prepared.group, partitions=prepared.partitions)
            await life.run(drain=lambda: _drain(aggregation, life), left=lambda: aggregation.left)


def _drain(aggregation: Aggregation, life: Lifecycle) -> None:
    async def drain() -> None:
        await aggregation.drain()
        life.end()

    life.watch(drain())


def _imported() -> type[Aggregation]:
    try:
        from workers.aggregates.pipeline import Aggregation
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("faust", "aiokafka", "mode", "rocksdict"):
            raise
        raise Misconfigured(
            f"the aggregates worker needs the package faust-streaming: {to_install('aggregates')}"
        ) from error
    return Aggregation


class _Handler(logging.Handler):
    """Passes the log lines of Faust's and aiokafka's loggers on."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            log.log(record.levelno, record.getMessage(), logger=record.name)
        except Exception:
            self.handleError(record)


def _log_through_structlog() -> None:
    root = logging.getLogger()
    root.handlers[:] = [_Handler(logging.WARNING)]
    root.setLevel(logging.WARNING)
