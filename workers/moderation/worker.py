"""The moderation worker: makes the parts and wires the stages. The lifecycle starts and ends them in order.

The event loop runs in the main thread, so the process handles signals even when Kafka does not answer.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import TYPE_CHECKING

import structlog

from workers import telemetry
from workers.core.marks import Marks, marks_of, written_time
from workers.core.records import Event
from workers.core.shrink import shrunk
from workers.core.usage import Mark
from workers.guard.guard import Guard
from workers.guard.load import NANO, NANO_JUDGES, load_guard
from workers.kafka import expired_offsets, hang_watch, registry, topics
from workers.kafka.clients import LOOK_S
from workers.kafka.decoding import Decoding
from workers.kafka.loop import LEAVE_S, KafkaThread
from workers.kafka.route import of_moderation
from workers.mapping.mapping import load as load_mapping
from workers.moderation.parts import start_parts
from workers.moderation.pipeline import Pipeline
from workers.moderation.reading import EventReader
from workers.process.lifecycle import Lifecycle
from workers.settings import Settings
from workers.tracing.stages import stages_of

if TYPE_CHECKING:
    from workers.core.similarity import SimHashes

log = structlog.get_logger(__name__)


GUESSABLE = (
    "dedup.secret is empty: whoever can read Redis can find out who wrote a text that they guess. Set it, to the same "
    "value for all workers"
)


COMPARABLE = (
    "dedup.secret is empty: whoever reads verdicts can test a guessed text against their similarity. Set it, to the "
    "same value for all workers"
)


class Worker:
    """One process of the moderation group.

    `run` returns after a drain. It raises `Misconfigured` or `Unavailable` at start and `Fatal` later, each with a
    sentence.
    """

    def __init__(self, settings: Settings, guard: Guard | None = None) -> None:
        self._settings = settings
        self._guard = guard

    async def run(self) -> None:
        """Start everything, run until a signal, drain."""
        settings = self._settings
        file = settings.events.mapping
        mapping = None if file is None else load_mapping(file, "events.mapping")
        # Until the Kafka thread knows the lag. An autoscaler would read 0 as a missed target, and start more workers.
        telemetry.OLDEST_DEADLINE_SECONDS.labels(settings.kafka.group).set(settings.worker.target_s)
        async with Lifecycle(settings.http, start_within_s=settings.worker.start_within_s) as life:
            stages = stages_of(settings.telemetry.traces, settings.worker.id)
            life.close_with(stages.close)
            guard = self._guard or load_guard(settings.guard)
            checked = await life.wait_for(lambda: asyncio.to_thread(topics.check, of_moderation(settings), LOOK_S))
            frames = await life.wait_for(lambda: asyncio.to_thread(registry.frames, settings))
            parts = await start_parts(settings, guard, life)
            settings = parts.settings

            await life.wait_for(lambda: asyncio.to_thread(expired_offsets.warn, settings))
            marks = marks_of(settings, frames)
            kafka: KafkaThread[Event] = await life.wait_for(
                lambda: asyncio.to_thread(
                    KafkaThread,
                    of_moderation(settings),
                    checked,
                    decode=Decoding(settings.topics.dead_letters, EventReader(settings, mapping)),
                    submit=life.from_thread(lambda events: pipeline.submit(events)),
                    committed=life.from_thread(
                        lambda records: parts.memories.add(memory for record in records for memory in record.memories)
                    ),
                    ended=life.from_thread(life.end),
                    shrink=shrunk,
                    mark=None if marks is None else _marked_now(marks),
                    stages=stages,
                )
            )
            pipeline: Pipeline = parts.pipeline(
                is_current=kafka.is_current,
                deliver=kafka.deliver,
                fail=life.end,
                marks=marks,
                similarity=_similarity(settings),
                stages=stages,
            )
            _collect_seldom()
            kafka.start()
            life.close_with(kafka.close, within_s=LEAVE_S)
            life.watch(hang_watch.watch(kafka, settings.kafka))
            if not settings.dedup.secret.get_secret_value():
                if settings.dedup.enabled:
                    log.warning(GUESSABLE)
                if settings.events.similarity:
                    log.warning(COMPARABLE)
            if settings.guard.model == NANO:
                log.warning(NANO_JUDGES)
            log.info(
                "worker started",
                worker=settings.worker.id,
                group=settings.kafka.group,
                model=guard.model,
                in_flight=settings.batch.in_flight,
            )
            await life.run(drain=lambda: kafka.stop(settings.worker.grace_s), left=lambda: kafka.left)


def _marked_now(marks: Marks) -> Mark:
    return lambda output, first, minute: marks.put_usage(output, first, minute, written_time(time.time()))


def _similarity(settings: Settings) -> SimHashes | None:
    if not settings.events.similarity:
        return None
    from workers.core.similarity import SimHashes

    return SimHashes(settings.dedup.secret.get_secret_value())


GARBAGE_THRESHOLD = 50_000
"""Allocations between two collections. With Python's 700, a fifth of the worker's CPU time went to searching cycles
among thousands of events in flight, which have none."""


def _collect_seldom() -> None:
    """Exclude objects that live as long as the process from garbage collection, and collect the rest seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD, 20, 20)
