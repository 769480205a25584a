"""Turns decoded events into finished records: batch, dedup, judge, decide. Runs in the event loop.

It must never call Kafka. It passes finished records to `deliver`, in any order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from workers import telemetry
from workers.core.batcher import Batcher
from workers.core.decide import verdict, verdict_id
from workers.core.marks import Marks, written_time
from workers.core.records import Event, Finished, Memory, Output, Source
from workers.core.usage import used_by
from workers.guard.languages import Languages, source_of
from workers.moderation.counting import counters
from workers.moderation.judge import Judge
from workers.policy.document import DEFAULT
from workers.policy.policy import CompiledPolicy
from workers.redis.dedup import Dedup
from workers.redis.strikes import StrikeLookups
from workers.settings import Settings
from workers.tracing.stages import UNTRACED, Stages

if TYPE_CHECKING:
    from workers.core.similarity import SimHashes  # Imports numpy.

LOOK_AGAIN_S = 0.005
"""How often a micro-batch that is due checks whether the judge has a free place."""


class Policies(Protocol):
    """The policies in force."""

    def snapshot(self) -> Mapping[str, CompiledPolicy]:
        """Give the policies for one micro-batch."""
        ...


class Pipeline:
    """Runs micro-batches, one asyncio task each.

    Guarantee: every record whose events were submitted is delivered exactly once as finished, when all of them are,
    unless its partition went away meanwhile or `fail` was called. `submit` never blocks.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        dedup: Dedup,
        judge: Judge,
        strikes: StrikeLookups,
        policies: Policies,
        default_policy: CompiledPolicy,
        is_current: Callable[[Source], bool],
        deliver: Callable[[list[Finished]], None],
        fail: Callable[[BaseException], None],
        languages: Languages | None = None,
        similarity: SimHashes | None = None,
        marks: Marks | None = None,
        stages: Stages = UNTRACED,
    ) -> None:
        self._settings = settings
        self._dedup = dedup
        self._judge = judge
        self._strikes = strikes
        self._policies = policies
        self._default = default_policy
        self._is_current = is_current
        self._deliver = deliver
        self._fail = fail
        self._languages = languages
        self._similarity = similarity
        self._stages = stages
        self._consumer = {"messaging.system": "kafka", "messaging.consumer.group.name": settings.kafka.group}
        self._carry_headers = stages.carried.union(settings.events.carry_headers)
        self._marks = marks
        limits = settings.batch
        self._batcher = Batcher(max_count=limits.max_count, max_tokens=limits.max_tokens, max_age_s=limits.max_age_s)
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, events: list[Event]) -> None:
        """Add events, in the order in which they were polled."""
        loop = asyncio.get_running_loop()
        for batch in self._batcher.add(events, loop.time()):
            self._start(batch)
        self._arm(loop)

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._batcher.deadline()
        if deadline is not None:
            self._timer = loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        if self._judge.is_full:
            # A closed micro-batch would only wait, and no longer grow. With a backlog, micro-batches of one event took
            # a third of a GPU's time.
            self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._expire)
            return
        self._timer = None
        self._start(self._batcher.close())

    def _start(self, batch: list[Event]) -> None:
        task = asyncio.get_running_loop().create_task(self._run(batch))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def _run(self, batch: list[Event]) -> None:
        """Run a micro-batch through all stages; events that may take long are in parts of their own."""
        closed_at = time.monotonic()
        if batch:
            telemetry.QUEUE_SECONDS.observe(max(0.0, time.time() - batch[0].source.received_at_ms / 1000))
            telemetry.BATCH_EVENTS.observe(len(batch))
        with self._stages.stage(
            "micro-batch", {**self._consumer, "messaging.batch.message_count": len(batch)}
        ) as stage:
            stage.link(event.headers for event in batch)
            self._begin(batch)
            with self._stages.stage("dedup"):
                await self._dedup.look_up(batch)
            await asyncio.gather(*[self._finish(part, closed_at, stage.context) for part in self._parts(batch)])

    async def _finish(self, part: Sequence[Event], closed_at: float, trace: object | None) -> None:
        """Judge and decide one part. Its events wait for each other, and for no other part."""
        judged = self._judge.judge([event for event in part if not event.is_reused and not event.is_empty])
        if self._languages is None:
            await judged
        else:
            await asyncio.gather(judged, self._languages.fill(part))
        # The present policies decide, because the engine may have taken minutes. `_begin` has set before who shares
        # assessments and how long to retry.
        policies = self._policies.snapshot()
        await self._strikes.look_up(part, policies, policies.get(DEFAULT, self._default))
        part = self._current(part)
        with self._stages.stage("decide", {"guardline.events": len(part)}):
            self._deliver(self._decide(part, policies, closed_at, trace))
        telemetry.BATCH_SECONDS.observe(time.monotonic() - closed_at)

    def _begin(self, batch: Sequence[Event]) -> None:
        """Set the verdict ids, and the SimHashes if they are on.

        The present policies say which tenants share assessments, and how long to retry.
        """
        worker = self._settings.worker
        policies = self._policies.snapshot()
        default = policies.get(DEFAULT, self._default)
        for event in batch:
            policy = policies.get(event.body["tenant_id"], default)
            event.verdict_id = verdict_id(worker.pipeline, event.source, event.body["event_id"])
            event.is_shared = policy.shared_cache
            event.retry_s = worker.hold_s if policy.on_unavailable == "hold" else worker.unavailable_after_s
        if self._similarity is not None:
            for event, found in zip(batch, self._similarity.of([event.body["text"] for event in batch]), strict=True):
                event.similarity = found

    def _parts(self, batch: Sequence[Event]) -> list[Sequence[Event]]:
        """Divide a micro-batch into parts that do not wait for each other, each with one retry time.

        Events of tenants that hold are a part of their own, and so is each suspect. All other events stay together.
        """
        usual_s = self._settings.worker.unavailable_after_s
        suspects = self._judge.suspects(batch)
        if not suspects and all(event.is_reused or event.retry_s == usual_s for event in batch):
            return [batch]
        together: dict[float, list[Event]] = {}
        alone: list[Sequence[Event]] = []
        for event in batch:
            if event.content_key in suspects and not event.is_reused:
                alone.append([event])
            else:
                together.setdefault(usual_s if event.is_reused else event.retry_s, []).append(event)
        return [*together.values(), *alone]

    def _current(self, part: Sequence[Event]) -> Sequence[Event]:
        """Leave out events whose partition has another owner now. That owner decides on them and counts them."""
        stale = [event for event in part if not self._is_current(event.source)]
        if not stale:
            return part
        telemetry.STALE.inc(len(stale))
        self._dedup.release(stale)
        gone = {event.source for event in stale}
        return [event for event in part if event.source not in gone]

    def _decide(
        self, part: Sequence[Event], policies: Mapping[str, CompiledPolicy], closed_at: float, trace: object | None
    ) -> list[Finished]:
        """Decide by these policies, also on events that could not be judged."""
        judged_ms = round((time.monotonic() - closed_at) * 1000, 1)
        default = policies.get(DEFAULT, self._default)
        verdicts, reviews = self._settings.topics.verdicts, self._settings.topics.review
        counts_usage = bool(self._settings.topics.usage)
        carry_attributes, carry_headers = self._settings.events.carry_attributes, self._carry_headers
        decided_at = b"" if self._marks is None else written_time(time.time())
        finished: list[Finished] = []
        for event in part:
            body = event.body
            own_policy = policies.get(body["tenant_id"])
            decided = verdict(event, default if own_policy is None else own_policy, judged_ms, carry_attributes)
            headers = None
            if event.headers:
                headers = [header for header in event.headers if header[0] in carry_headers] or None
            outputs: tuple[Output, ...] = (Output(verdicts, event.key, decided.value, headers),)
            if decided.review is not None:
                outputs += (Output(reviews, event.key, decided.review, headers),)
            if self._marks is not None:
                outputs = tuple([self._marks.put(output, event.verdict_id, decided_at) for output in outputs])
            is_new = event.assessment is not None and not event.is_reused
            memory = Memory(
                event.event_key,
                event.content_key,
                event.verdict_id,
                decided.assessment if is_new else None,
            )
            counted = counters(
                decided.decision,
                event.duplicate_of is not None,
                event.is_reused,
                event.assessment is None and not event.is_empty,
                default.id if own_policy is None else None,
                event.ignored_fields,
                None if self._languages is None else source_of(event),
            )
            created_at = body.get("created_at")
            times = () if created_at is None else (created_at,)
            usage = (used_by(event),) if counts_usage else ()
            done = Finished(event.source, outputs, (memory,), event.headers, counted, times, usage, trace)
            record = done if event.siblings is None else event.siblings.finish(event.place, done)
            if record is not None:
                finished.append(record)
        return finished
