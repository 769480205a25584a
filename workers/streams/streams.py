"""Answers the records of streams: each stream by a task of its own, in order. Runs in the event loop.

It must never call Kafka, besides the reading of a new owner. It passes finished records to `deliver`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

import structlog

from schemas.policy import StreamPolicy
from schemas.stream import StreamSession
from workers import telemetry
from workers.core.records import Finished, Source, TopicPartition
from workers.errors import Fatal, Unavailable, Unjudgeable
from workers.live.guard import LiveGuard
from workers.live.session import LiveSession, Ruling
from workers.policy.document import DEFAULT
from workers.policy.policy import CompiledPolicy
from workers.streams.opened import Opened, Partition, opened_of
from workers.streams.outputs import Outputs, Terms
from workers.streams.reading import Item
from workers.streams.silence import Silence
from workers.streams.stream import Act, Limits, Meaning, Stream, without_stream
from workers.streams.takeover import known_in

log = structlog.get_logger(__name__)

LOOK_S = 1.0
"""How often the worker looks for partitions that it has lost, and for streams that nobody ends."""

BUSY_S = 0.05
"""An answer without a judgement that took longer than this has waited for the engine."""

REPLAYS = 8
"""How many streams of a former owner are repeated at a time. If all of them asked the engine at once, those that came
last would not be judged in time, and neither would the streams that go on."""

_BACK_OFF_S = (0.1, 2.0)

HANGS = (
    "the engine of streams has judged nothing for {seconds:.0f} s (worker.engine_hangs_after_s), although it was "
    "asked. The owner of the partitions goes on from the last commit"
)


class Streams:
    """The streams of all partitions of this worker.

    `read_sessions` gives the newest states of all sessions, `read_items` the items of a part of a partition; both raise
    `Unavailable` while Kafka does not answer.

    Guarantee: every submitted item is delivered exactly once as finished, with one verdict, unless its partition was
    revoked meanwhile or `fail` was called. Items of a stream are answered in order. `submit` never blocks.
    """

    def __init__(
        self,
        guard: LiveGuard,
        outputs: Outputs,
        *,
        limits: Limits,
        max_open: int,
        policies: Callable[[], Mapping[str, CompiledPolicy]],
        default_policy: CompiledPolicy,
        read_sessions: Callable[[], Awaitable[Mapping[bytes, StreamSession]]],
        read_items: Callable[[TopicPartition, int, int], AsyncIterator[Item]],
        is_current: Callable[[Source], bool],
        deliver: Callable[[list[Finished]], None],
        fail: Callable[[BaseException], None],
        hangs_after_s: float,
    ) -> None:
        self._guard = guard
        self._outputs = outputs
        self._limits = limits
        self._max_open = max_open
        self._policies = policies
        self._default = default_policy
        self._read_sessions = read_sessions
        self._read_items = read_items
        self._is_current = is_current
        self._deliver = deliver
        self._fail = fail
        self._hangs_after_s = hangs_after_s
        self._silence = Silence()
        self._replays = asyncio.Semaphore(REPLAYS)
        self._partitions: dict[TopicPartition, Partition] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = 0

    def submit(self, items: list[Item]) -> None:
        """Take items, in the order in which they were polled."""
        for item in items:
            partition = self._partition_of(item)
            if partition is None:
                continue
            if partition.waiting is not None:
                partition.waiting.append(item)
            else:
                self._add(partition, item)

    def _partition_of(self, item: Item) -> Partition | None:
        """Return the partition of an item; None if the item is of an epoch that has ended."""
        origin, epoch = item.source.origin, item.source.epoch
        partition = self._partitions.get(origin)
        if partition is not None and partition.first.epoch == epoch:
            return partition
        if partition is not None:
            if partition.first.epoch > epoch:
                return None
            self._drop(partition)
        partition = self._partitions[origin] = Partition(item.source)
        self._run(self._take_over(partition))
        return partition

    def _add(self, partition: Partition, item: Item) -> None:
        opened = partition.streams.get(item.stream)
        if opened is None:
            opened = partition.streams[item.stream] = Opened()
        opened.items.append(item)
        opened.used_at = time.monotonic()
        if opened.task is None:
            opened.task = self._run(self._work(partition, item.stream, opened))

    # A new owner.

    async def _take_over(self, partition: Partition) -> None:
        """Learn which streams of the partition are open. Repeats it while Kafka does not answer."""
        wait_s = _BACK_OFF_S[0]
        while not partition.is_over:
            try:
                streams = await self._known(partition)
                break
            except Unavailable as error:
                log.warning("cannot read which streams are open", reason=str(error))
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _BACK_OFF_S[1])
        else:
            return
        partition.streams = streams
        waiting, partition.waiting = partition.waiting or [], None
        for item in waiting:
            self._add(partition, item)

    async def _known(self, partition: Partition) -> dict[tuple[str, str], Opened]:
        first = partition.first
        began = time.monotonic()
        known = known_in(await self._read_sessions(), first, self._limits.forgotten_ms)
        streams = {(one.tenant_id, one.stream_id): opened_of(one) for one in known}
        # A stream that was cut is not judged any more, so its records are not needed.
        starts = [one.stream.source.offset for one in known if one.stream.state != "cut"]
        count = 0
        if starts:
            async for item in self._read_items(first.origin, min(starts), first.offset):
                opened = streams.get(item.stream)
                if opened is not None and opened.repeat(item, self._limits):
                    count += 1
        if known:
            telemetry.STREAM_TAKEOVERS.inc()
            telemetry.STREAMS_REPLAYED.inc(count)
            log.info(
                "streams taken over",
                topic=first.origin.topic,
                partition=first.origin.partition,
                streams=len(known),
                records=count,
                s=round(time.monotonic() - began, 3),
            )
        return streams

    async def _replayed(self, opened: Opened, stream: Stream, rules: StreamPolicy) -> None:
        """Bring a stream of a former owner to where that one left it. Its verdicts exist, so nothing is written.

        If its first record is not there any more, the stream cannot be judged from here on.
        """
        past, opened.past = opened.past, []
        is_unjudged = stream.state == "unavailable"
        session = opened.session = self._guard.open(rules, is_unjudged=is_unjudged)
        if not opened.is_whole:
            await session.give_up()
        for part in past:
            if isinstance(part, list):
                await session.delta("".join(part))
            else:
                await self._ruling(session, *part, stream.state)

    # The records of one stream.

    async def _work(self, partition: Partition, name: tuple[str, str], opened: Opened) -> None:
        while opened.items and not partition.is_over:
            finished = await self._answer(partition, opened, opened.items.popleft())
            if not partition.is_over:
                self._deliver([finished])
        opened.task = None
        if partition.is_over:
            await opened.close_session()
        elif opened.stream is None:
            partition.streams.pop(name, None)

    async def _answer(self, partition: Partition, opened: Opened, item: Item) -> Finished:
        began = time.monotonic()
        if opened.stream is not None and opened.stream.is_forgotten(item, self._limits):
            await self._end(opened)
        stream, terms = opened.stream, opened.terms
        is_to_be_repeated = opened.waits_for_repetition
        if stream is not None and is_to_be_repeated and not opened.is_whole:
            stream.next_seq = item.seq  # What came before it is deleted.
        meaning = without_stream(item) if stream is None else stream.meaning(item, self._limits)
        if meaning.act is Act.BEGIN:
            return await self._begin(opened, item)
        if stream is None or terms is None:
            ruling = Ruling(shown_chars=0)
            verdict = self._outputs.verdict(item, meaning.outcome, None, ruling=ruling, judged_ms=_ms_since(began))
            return _finished(item, meaning.outcome, [verdict])
        has_expired = meaning.outcome == "expired"
        if is_to_be_repeated:
            # An expired stream shows nothing more. So what cannot be judged again is not shown, whatever the policy.
            changes = {"on_unavailable": "cut"} if has_expired else {}
            async with self._replays:
                if not partition.is_over:
                    await self._replayed(opened, stream, terms.rules.model_copy(update=changes))
        session = opened.session
        if session is None:
            ruling, outcome = Ruling(shown_chars=opened.stays), meaning.outcome
        else:
            ruling, outcome = await self._ruling(session, item, meaning, stream.state)
            self._measure(ruling, meaning, outcome, began)
        outputs = [self._outputs.verdict(item, outcome, terms, ruling=ruling, judged_ms=_ms_since(began))]
        reason = ""
        cut = None if session is None or stream.state == "cut" or has_expired else session.cut
        changed = stream.state
        if cut is not None:
            outputs.append(self._outputs.intervention(item, cut, terms))
            changed, reason = "cut", cut.reason
        elif session is not None and session.is_unjudged:
            changed = "unavailable"
        if meaning.ends:
            outputs.append(self._outputs.tombstone(item))
            await self._end(opened)
        elif changed != stream.state:
            outputs.append(self._outputs.session(item, stream.source, changed, terms, ruling.shown_chars))
            stream.state = changed
            if cut is not None:
                await opened.close_session()
        return _finished(item, outcome, outputs, reason)

    async def _end(self, opened: Opened) -> None:
        await opened.close_session()
        opened.stream = None
        self._open -= 1

    async def _begin(self, opened: Opened, item: Item) -> Finished:
        """Begin a stream, with the rules of its tenant's present policy."""
        await opened.close_session()
        opened.past = []
        policies = self._policies()
        policy = policies.get(item.tenant_id) or policies.get(DEFAULT) or self._default
        terms = opened.terms = Terms(policy.stream_reference, self._guard.in_force(policy.stream))
        stream = opened.stream = Stream(item.source)
        stream.begin(item)
        session = opened.session = self._guard.open(terms.rules)
        outcome = "opened"
        self._open += 1  # `watch` corrects it: to count all streams would take longer than to judge a token.
        if self._open > self._max_open:
            await session.give_up()
            outcome = "unavailable"
        ruling = Ruling(shown_chars=0)
        outputs = [self._outputs.verdict(item, outcome, terms, ruling=ruling, judged_ms=None)]
        reason = ""
        if session.cut is not None:
            outputs.append(self._outputs.intervention(item, session.cut, terms))
            stream.state, reason = "cut", session.cut.reason
            await opened.close_session()
        elif session.is_unjudged:
            stream.state = "unavailable"
        outputs.append(self._outputs.session(item, stream.source, stream.state, terms))
        return _finished(item, outcome, outputs, reason)

    async def _ruling(self, session: LiveSession, item: Item, meaning: Meaning, state: str) -> tuple[Ruling, str]:
        """Judge a record as its meaning says. Returns what that led to, and the outcome.

        `state` is the last one that was written. The session may be further: by the replay of a former owner's records.
        """
        act, outcome = meaning.act, meaning.outcome
        if act is Act.ANSWER:
            return Ruling(shown_chars=session.shown_chars), outcome
        if act is Act.GIVE_UP:
            # The text of a delta counts as a part of the answer, which the policy may show unjudged.
            text = item.content if item.kind == "delta" and item.content is not None else ""
            return await session.give_up(text), outcome
        try:
            ruling = await (session.finish() if act is Act.FINISH else self._judged(session, item))
        except Unjudgeable:
            return await session.give_up(), "refused"
        if session.cut is not None:
            outcome = "unavailable" if session.cut.reason == "unavailable" else "cut"
        elif session.is_unjudged and (act is Act.JUDGE or state == "open"):
            outcome = "unavailable"
        elif item.kind == "delta" and not ruling.risk:
            outcome = "waiting"
        return ruling, outcome

    async def _judged(self, session: LiveSession, item: Item) -> Ruling:
        assert item.content is not None
        if item.kind == "user":
            return await session.user(item.content)
        return await session.delta(item.content)

    # What nobody asked for.

    async def watch(self) -> None:
        """Free what revoked partitions and forgotten streams hold, until cancelled.

        Raises:
            Fatal: the engine hangs.
        """
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            if self._silence.lasted_s > self._hangs_after_s:
                raise Fatal(HANGS.format(seconds=self._silence.lasted_s))
            for origin, partition in list(self._partitions.items()):
                if not self._is_current(partition.first):
                    self._drop(partition)
                    del self._partitions[origin]
                else:
                    self._forget_old(partition, now)
            self._open = self.open
            telemetry.STREAMS_OPEN.set(self._open)

    @property
    def open(self) -> int:
        """The number of streams that are neither closed nor expired, those that were cut included."""
        partitions = self._partitions.values()
        return sum(opened.stream is not None for partition in partitions for opened in partition.streams.values())

    def _forget_old(self, partition: Partition, now: float) -> None:
        """Free streams without a record for longer than a stream lives: nobody has ended them, and nobody will."""
        limit_s = self._limits.forgotten_ms / 1000
        for name, opened in list(partition.streams.items()):
            if opened.task is None and now - opened.used_at > limit_s:
                del partition.streams[name]
                self._run(opened.close_session())

    def _drop(self, partition: Partition) -> None:
        """Free the sessions of a partition whose epoch has ended. Tasks that work on a record end after it."""
        partition.is_over = True
        for opened in partition.streams.values():
            if opened.task is None:
                self._run(opened.close_session())

    def _measure(self, ruling: Ruling, meaning: Meaning, outcome: str, began: float) -> None:
        now = time.monotonic()
        if ruling.risk or ruling.prompt is not None:
            self._silence.judged()
            telemetry.STREAM_TOKENS.inc(len(ruling.risk))
            telemetry.STREAM_JUDGE_SECONDS.observe(now - began)
        elif outcome == "unavailable" and meaning.act is Act.JUDGE and now - began > BUSY_S:
            # The engine was asked. A stream that goes on without judgements is answered at once.
            self._silence.failed(now)

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)


def _finished(item: Item, outcome: str, outputs: Sequence[Any], cut: str = "") -> Finished:
    counted = [telemetry.STREAM_RECORDS.labels(outcome), *([telemetry.STREAM_CUTS.labels(cut)] if cut else [])]
    return Finished(
        item.source,
        tuple(outputs),
        headers=item.headers,
        counted=tuple(counted),
        created_at=() if item.created_at is None else (item.created_at,),
    )


def _ms_since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 3)
