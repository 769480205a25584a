"""From decoded events to finished records: batch, dedup, judge, decide. Lives in the event-loop thread.

It must never touch Kafka; what it finishes goes to `deliver`, in any order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from workers import telemetry
from workers.core.batcher import Batcher
from workers.core.decide import verdict, verdict_id
from workers.core.records import Finished, Memory, Output, UnderWay
from workers.guard.guard import Request
from workers.moderation.judge import Judge
from workers.policy.policy import CompiledPolicy
from workers.redis.dedup import Dedup, Known
from workers.settings import Settings

LOOK_AGAIN_S = 0.005
"""How often a micro-batch that is old enough looks whether there is a place for it."""


class Policies(Protocol):
    """The policies in force."""

    def snapshot(self) -> Mapping[str, CompiledPolicy]:
        """Give the policies for one micro-batch."""
        ...


class Pipeline:
    """Runs micro-batches, one asyncio task each.

    Guarantee: every submitted event is delivered exactly once as finished, unless its partition went away meanwhile
    or `fail` was called. `submit` never blocks.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        dedup: Dedup,
        judge: Judge,
        policies: Policies,
        default_policy: CompiledPolicy,
        deliver: Callable[[list[Finished]], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._settings = settings
        self._dedup = dedup
        self._judge = judge
        self._policies = policies
        self._default = default_policy
        self._deliver = deliver
        self._fail = fail
        limits = settings.batch
        self._batcher = Batcher(max_count=limits.max_count, max_tokens=limits.max_tokens, max_age_s=limits.max_age_s)
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, events: list[UnderWay]) -> None:
        """Take events in the order in which they were polled."""
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
            # It would wait, and go to the engine as small as it is: what trickles in beside a backlog took a third of
            # a GPU's time as micro-batches of one.
            self._timer = asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._expire)
            return
        self._timer = None
        self._start(self._batcher.close())

    def _start(self, batch: list[UnderWay]) -> None:
        task = asyncio.get_running_loop().create_task(self._run(batch))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    async def _run(self, batch: list[UnderWay]) -> None:
        started = time.monotonic()
        pipeline = self._settings.worker.pipeline
        policies, default = self._policies.snapshot(), self._default
        asking = [policies.get(item.event["tenant_id"], default) for item in batch]
        ids = [verdict_id(pipeline, item.source, item.event["event_id"]) for item in batch]
        known = await self._dedup.lookup(batch, ids, [policy.shared_cache for policy in asking])
        patience_s = self._settings.worker.unavailable_after_s
        slow = self._slow(asking, known)
        if not slow:
            await self._finish(batch, ids, known, patience_s, started)
            return
        apart = {index for part, _ in slow for index in part}
        rest = [index for index in range(len(batch)) if index not in apart]
        await asyncio.gather(
            *(
                self._finish(
                    [batch[index] for index in part],
                    [ids[index] for index in part],
                    [known[index] for index in part],
                    part_patience_s,
                    started,
                )
                for part, part_patience_s in [(rest, patience_s), *slow]
                if part
            )
        )

    def _slow(self, asking: Sequence[CompiledPolicy], known: Sequence[Known]) -> list[tuple[list[int], float]]:
        """Name the parts that nobody else should wait for, and their patience: tenants that hold, and each suspect."""
        holding = [
            index
            for index, entry in enumerate(known)
            if entry.assessment is None and asking[index].on_unavailable == "hold"
        ]
        suspects = self._judge.suspects(entry.content_key for entry in known)
        if not holding and not suspects:
            return []
        worker = self._settings.worker
        alone = {index for index in suspects if known[index].assessment is None}
        return [
            ([index for index in holding if index not in alone], worker.hold_s),
            *(([index], worker.hold_s if index in holding else worker.unavailable_after_s) for index in alone),
        ]

    async def _finish(
        self,
        batch: Sequence[UnderWay],
        ids: Sequence[str],
        known: Sequence[Known],
        patience_s: float,
        started: float,
    ) -> None:
        """Judge what nobody knows, decide and deliver. Who is in it waits for all of it, and for nobody else."""
        assessments = [entry.assessment for entry in known]
        unknown = [index for index, assessment in enumerate(assessments) if assessment is None]
        if unknown:
            answers = await self._judge.judge(
                [known[index].content_key for index in unknown],
                [_request(batch[index].event) for index in unknown],
                [batch[index].source for index in unknown],
                patience_s,
            )
            for index, answer in zip(unknown, answers, strict=True):
                assessments[index] = answer
        # The engine may have taken minutes. Who shared a cache and how long to wait was settled before; all that is
        # decided, what no judgement could be had of included, is decided by the policies in force now.
        policies, default = self._policies.snapshot(), self._default
        judged_ms = round((time.monotonic() - started) * 1000, 1)
        verdicts, reviews = self._settings.topics.verdicts, self._settings.topics.review
        finished: list[Finished] = []
        decisions = {"allow": 0, "review": 0, "block": 0}
        duplicates = unavailable = 0
        for item, own_id, entry, assessment in zip(batch, ids, known, assessments, strict=True):
            event = item.event
            decided = verdict(
                own_id,
                item.source,
                event,
                assessment,
                policies.get(event["tenant_id"], default),
                duplicate_of=entry.duplicate_of,
                received_at_ms=item.received_at_ms,
                judged_ms=judged_ms,
            )
            decisions[decided.decision] += 1
            duplicates += entry.duplicate_of is not None
            unavailable += assessment is None
            outputs: tuple[Output, ...] = (Output(verdicts, item.key, decided.value),)
            if decided.review is not None:
                outputs += (Output(reviews, item.key, decided.review),)
            finished.append(
                Finished(
                    item.source,
                    outputs,
                    Memory(
                        entry.event_key,
                        entry.content_key,
                        own_id.encode(),
                        decided.assessment if assessment is not None and entry.assessment is None else None,
                    ),
                    item.headers,
                )
            )
        self._deliver(finished)
        for decision, count in decisions.items():
            if count:
                telemetry.DECISIONS.labels(decision).inc(count)
        telemetry.DUPLICATES.inc(duplicates)
        telemetry.REUSED.inc(len(batch) - len(unknown))
        telemetry.UNAVAILABLE.inc(unavailable)
        telemetry.BATCH_SECONDS.observe(time.monotonic() - started)


def _request(event: Mapping[str, Any]) -> Request:
    context = event.get("context")
    turns = tuple((turn["role"], turn["text"]) for turn in context) if context else ()
    return Request(event["text"], event.get("role", "user"), turns)
