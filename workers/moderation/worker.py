"""The moderation worker: wires the stages, starts and watches the Kafka thread, and ends in order.

The event loop owns the main thread, so that signals are heard whatever Kafka does.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress

import structlog

from workers import telemetry
from workers.core.records import NOTHING_LOST, Event, Memory
from workers.errors import Fatal, GuardlineError
from workers.guard.guard import Guard
from workers.guard.load import NANO, NANO_JUDGES, load_guard
from workers.kafka import topics
from workers.kafka.loop import KafkaThread
from workers.moderation.judge import Judge
from workers.moderation.pipeline import Pipeline
from workers.policy.policy import default_strict
from workers.redis import client as redis_client
from workers.redis.deaths import Deaths
from workers.redis.dedup import Dedup
from workers.redis.policy_cache import PolicyCache
from workers.settings import Settings

log = structlog.get_logger(__name__)

WATCH_S = 1.0
"""How often the event loop looks whether the Kafka thread still turns."""

CLOSE_S = 5.0
"""How long the engine may take to close: what is under way in it is of no use any more."""

HANGS = "a call to Kafka has not come back for {seconds:.0f} s. " + NOTHING_LOST


class Worker:
    """One process of the moderation group.

    `run` returns after a drain, and raises `Misconfigured` at start or `Fatal` later, each with a sentence.
    """

    def __init__(self, settings: Settings, guard: Guard | None = None) -> None:
        self._settings = settings
        self._guard = guard or load_guard(settings.guard)
        self._kafka: KafkaThread | None = None
        self._is_draining = False
        self._has_failed = False

    @property
    def is_ready(self) -> bool:
        """Whether the Kafka thread runs and no drain has begun."""
        return self._kafka is not None and self._kafka.is_alive() and not self._is_draining

    @property
    def is_alive(self) -> bool:
        """Whether the Kafka thread runs, and neither it nor the engine hangs; before it starts the process is alive."""
        return self._kafka is None or (self._kafka.is_alive() and not self._has_failed)

    async def run(self) -> None:
        """Start everything, work until a signal, drain."""
        settings = self._settings
        loop = asyncio.get_running_loop()
        max_bytes = await asyncio.to_thread(topics.check, settings)
        redis = await redis_client.connect(settings.redis)
        telemetry.REDIS_UP.set(1)
        await self._guard.start()
        policies = PolicyCache(redis_url=settings.redis.url.get_secret_value(), namespace=settings.redis.namespace)
        await policies.start()
        notes = Deaths(
            redis,
            namespace=settings.redis.namespace,
            worker_id=settings.worker.id,
            deaths_ttl_s=settings.dedup.content_ttl_s,
        )
        await notes.start()
        telemetry.REDIS_UP.set_function(lambda: notes.is_up and policies.healthy)
        ended: asyncio.Future[BaseException | None] = loop.create_future()

        def end(error: BaseException | None) -> None:
            if not ended.done():
                ended.set_result(error)

        def fail(error: BaseException) -> None:
            self._has_failed = True
            end(error)
            if self._kafka is not None:
                self._kafka.quit()

        def spawn(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
            task = loop.create_task(work)
            task.add_done_callback(finish)
            return task

        def finish(task: asyncio.Task[None]) -> None:
            remembering.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                fail(error)

        def submit(events: list[Event]) -> None:
            try:
                pipeline.submit(events)
            except Exception as error:
                # The event loop would only log it, and the events would stay under way for ever.
                fail(error)

        dedup = Dedup(redis, settings.dedup, namespace=settings.redis.namespace, fingerprint=self._guard.fingerprint)

        remembering: set[asyncio.Task[None]] = set()

        def remember(memories: list[Memory]) -> None:
            remembering.add(spawn(dedup.remember(memories)))

        kafka: KafkaThread = await asyncio.to_thread(
            KafkaThread,
            settings,
            max_bytes,
            submit=lambda events: _call(loop, submit, events),
            remember=lambda memories: _call(loop, remember, memories),
            ended=lambda error: _call(loop, end, error),
        )
        judge = Judge(
            self._guard,
            notes,
            in_flight=settings.batch.in_flight,
            is_current=kafka.is_current,
            hangs_after_s=settings.worker.engine_hangs_after_s,
        )
        pipeline: Pipeline = Pipeline(
            settings,
            dedup=dedup,
            judge=judge,
            policies=policies,
            default_policy=default_strict(),
            deliver=kafka.deliver,
            fail=fail,
        )
        self._kafka = kafka
        _collect_seldom()
        kafka.start()
        self._listen(loop, kafka)
        # An engine that dies, or a task that ends by a bug, ends the worker also when nothing is asked of it.
        watches = [spawn(work) for work in (self._watch(kafka), self._guard.watch(), policies.watch(), notes.watch())]
        if settings.guard.model == NANO:
            log.warning(NANO_JUDGES)
        log.info("worker started", worker=settings.worker.id, group=settings.kafka.group, model=self._guard.model)
        try:
            error = await ended
        finally:
            for watch in watches:
                watch.cancel()
            if remembering:
                await asyncio.wait(remembering, timeout=2 * settings.redis.timeout_s)
            await policies.close()
            await notes.close()
            await redis.aclose()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._guard.close(), CLOSE_S)
        if error is not None:
            raise error if isinstance(error, GuardlineError) else Fatal(f"an unexpected error: {error!r}") from error
        log.info("worker stopped: everything taken in was committed or is left to the next owner")

    async def _watch(self, kafka: KafkaThread) -> None:
        """Raise Fatal when the Kafka thread hangs in a call: librdkafka does not keep every time-out it is given.

        Counts its own ticks and not the clock, so that a process that was frozen is not taken for one that hangs.
        """
        # A commit and its abort may take the transaction's timeout each, and a revoke in the same turn as much again.
        patience = math.ceil((4 * self._settings.kafka.transaction_timeout_s + 5) / WATCH_S)
        turns, ticks = kafka.turns, 0
        while ticks < patience:
            await asyncio.sleep(WATCH_S)
            turns, ticks = kafka.turns, ticks + 1 if turns == kafka.turns else 0
        raise Fatal(HANGS.format(seconds=patience * WATCH_S))

    def _listen(self, loop: asyncio.AbstractEventLoop, kafka: KafkaThread) -> None:
        def drain() -> None:
            if self._is_draining:
                log.warning("second signal: ending at once")
                # Daemon threads and open connections would hold a normal exit up.
                os._exit(1)
            self._is_draining = True
            log.info("draining", under_way=kafka.ledger.uncommitted, grace_s=self._settings.worker.grace_s)
            kafka.stop(self._settings.worker.grace_s)

        # SIGHUP: the terminal went away. Under nohup it is ignored, and stays so.
        is_tied_to_terminal = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        for number in (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if is_tied_to_terminal else [])):
            loop.add_signal_handler(number, drain)


GARBAGE_THRESHOLD = 50_000
"""Allocations between two collections. With Python's 700 a fifth of the worker's CPU went into looking for cycles
among thousands of events under way, which are in none."""


def _collect_seldom() -> None:
    """Leave what lives as long as the process out of garbage collection, and collect the rest seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)


def _call(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: object) -> None:
    """Hand over to the event loop; one that is closed has nobody left to tell."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise
