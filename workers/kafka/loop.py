"""The thread that owns the consumer, the producer and the ledger; nothing else touches them.

It serves every worker that turns input records into outputs. Items go to the event loop by a call, and finished records
come back through a queue. Neither thread waits for the other.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Generic, TypeVar

import structlog
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from workers import telemetry
from workers.core.ledger import Ledger
from workers.core.records import Finished, Source, TopicPartition
from workers.core.usage import Mark
from workers.errors import Fatal
from workers.kafka import clients, membership
from workers.kafka.counting import count_committed
from workers.kafka.input_topics import NewTopics
from workers.kafka.intake import TAKEN_OVER, Intake
from workers.kafka.lag_watch import LagWatch
from workers.kafka.outbox import Outbox, Shrink, never
from workers.kafka.progress import Progress
from workers.kafka.questions import Questions
from workers.kafka.retention import count_unread
from workers.kafka.route import Route
from workers.kafka.topic_watch import TopicWatch
from workers.kafka.topics import Checked
from workers.tracing.stages import UNTRACED, Stage, Stages

log = structlog.get_logger(__name__)

POLL_COUNT = 500
TRICKLE_COUNT = 1
"""Records a poll between the two water marks. The thread must poll to stay in the group, and `consume(0)` is not
possible. A pause would discard the prefetched records, which costs 0.1-0.8 s each time."""
BUSY_POLL_S = 0.01
"""With uncommitted records: how long a finished record may wait until the thread looks at it."""

REVOKE_SHARE = 0.2
"""The fraction of `max.poll.interval.ms` that the commit inside a revoke may take."""

LEAVE_S = 5.0
"""How long to wait for the thread after it was told to end, or reported its end: in that time it leaves the group."""

LAST_COMMIT_S = 2.0

FAILED_LEAVE_S = 2.0
ABORT_S = 0.5
"""After a failure other workers have to get the partitions within 3 s. Without an abort, the next owner waits for the
transaction's timeout before it can read the committed offsets."""


Item = TypeVar("Item")

Decode = Callable[[Message, Source], Sequence[Item] | Finished]
"""Gives the items of a record, such as events, or the finished record if no item has to be worked on. Must not raise,
must not block; `workers.kafka.decoding.Decoding` is one."""


def ignore(_: list[Finished]) -> None:
    """Do nothing after a commit."""


class KafkaThread(threading.Thread, Generic[Item]):
    """Runs intake, decode, ledger and outbox, one after the other, until `stop` or a failure.

    `submit` takes the items of one poll. The worker gives each record back by `deliver`, once. `committed` takes the
    records of each committed transaction, in order within each partition. `shrink` makes outputs fit that are too large
    for their topics; without it such a record becomes a dead letter. `mark` puts headers on records of usage. `ended`
    gets the cause of the end, None after `stop`. All five are called in this thread and must not block. A process may
    have several such threads, each with a group of its own.

    Guarantee: every polled record is registered before any other code sees it, and every committed record was current
    when it was committed. Blocks in calls to Kafka, never for the event loop.
    """

    def __init__(
        self,
        route: Route,
        checked: Checked,
        *,
        decode: Decode[Item],
        submit: Callable[[list[Item]], None],
        committed: Callable[[list[Finished]], None] = ignore,
        ended: Callable[[BaseException | None], None],
        shrink: Shrink = never,
        mark: Mark | None = None,
        stages: Stages = UNTRACED,
    ) -> None:
        super().__init__(name=f"kafka {route.group}", daemon=True)
        self._route = route
        self._decode = decode
        self._submit = submit
        self._committed = committed
        self._ended = ended
        self._stages = stages
        self._completed: deque[list[Finished]] = deque()
        self._has_completed = threading.Event()
        self._stop_by: float | None = None
        self._quit = False
        self._left: int | None = None
        self._is_held = False
        self._is_limited = False
        self.turns = 0
        self.ledger = Ledger()
        membership.check(route.kafka)
        self._outbox = Outbox(route, checked.max_bytes, shrink, mark)
        self._intake = Intake(route, checked.inputs, self.ledger, self._before_revoke)
        self._questions = Questions(route.kafka)
        self._counting: deque[Future[None]] = deque()
        self._progress = Progress(clients.onlooker(route.kafka), self._intake.consumer, self.ledger, self._questions)
        self._lag = LagWatch(self._intake.lag, self._questions, self._progress.starts, route)
        self._topics = TopicWatch(checked.inputs, self._intake.log, self._questions)
        self._new_topics = NewTopics(route, checked.inputs, self._questions)
        self._held_records = telemetry.UNCOMMITTED.labels(route.group)
        self._pauses = telemetry.PAUSED.labels(route.group)

    def deliver(self, finished: list[Finished]) -> None:
        """Take finished records. Any thread."""
        self._completed.append(finished)
        self._has_completed.set()

    @property
    def left(self) -> int:
        """The number of records that were read and not committed; after the end, the last such number. Any thread."""
        return self.ledger.uncommitted if self._left is None else self._left

    def is_current(self, source: Source) -> bool:
        """Say whether this work can still be committed. Any thread."""
        return self.ledger.is_current(source.origin, source.epoch)

    def stop(self, grace_s: float) -> None:
        """Drain: stop reading, finish the records in flight for at most `grace_s`, commit, leave. Any thread."""
        self._stop_by = time.monotonic() + grace_s

    def quit(self) -> None:
        """End now, without another commit. Any thread."""
        self._quit = True

    async def close(self) -> None:
        """End now, without another commit, and wait for the end. The event loop."""
        self.quit()
        await asyncio.to_thread(self.join)

    def run(self) -> None:
        """Run until the end, and call `ended` with the cause. Then leave the group; wait for that at most `LEAVE_S`."""
        failure: BaseException | None = None
        try:
            while not self._is_done():
                self._turn()
            self._commit_before_revoke()
        except BaseException as error:
            failure = error
        self._left = self.ledger.uncommitted  # Leaving the group empties the ledger.
        self._ended(failure)
        try:
            self._leave(has_failed=failure is not None)
        except Exception as error:
            log.warning("could not leave the group; the session will expire", error=str(error))

    def _leave(self, *, has_failed: bool) -> None:
        """Leave the group, so that others get the partitions at once. After a failure, commit nothing."""
        if has_failed:
            self._intake.give_up()
            self._outbox.give_up(ABORT_S)
        self._intake.leave(FAILED_LEAVE_S if has_failed else LEAVE_S)

    def _is_done(self) -> bool:
        if self._quit:
            raise Fatal("stopped before all records were committed; the next owner judges them again")
        if self._stop_by is None:
            return False
        return self.ledger.uncommitted == 0 or time.monotonic() >= self._stop_by

    def _turn(self) -> None:
        self.turns += 1
        messages = self._poll()
        self._topics.check(time.monotonic())
        if topics := self._new_topics.look(time.monotonic()):
            self._intake.subscribe(topics)
            self._topics.watch(topics)
        self._count_unread()
        if messages:
            with self._stages.stage("decode", {"messaging.batch.message_count": len(messages)}) as stage:
                self._take_in(messages, stage)
        self._collect()  # 1
        commit = self._route.commit
        now = time.monotonic()
        is_draining = self._stop_by is not None
        if self.ledger.is_due(now, count=commit.max_count, age_s=0 if is_draining else commit.max_age_s):
            self._commit(self._drain_deadline(), positions=self._progress.positions(now))
        elif positions := self._progress.positions(now):
            self._commit(self._drain_deadline(), limit=0, positions=positions)
        self._held_records.set(self.ledger.uncommitted)
        self._lag.check(now, self.ledger.assigned, is_limited=self._is_limited)

    def _poll(self) -> list[Message]:
        """Poll as many records as the water marks allow: a full batch below the low mark, one record above it.

        If a slow record delays many finished ones, only its partition is paused, so that the others have room.
        """
        limits, ledger = self._route.batch, self.ledger
        is_thirsty = self._stop_by is None and ledger.unfinished < limits.low_water
        is_full = ledger.uncommitted >= limits.high_water
        if self._stop_by is not None or is_full:
            self._is_held = True
        elif is_thirsty:
            self._is_held = False
        share = max(limits.high_water // (len(ledger.assigned) + 1), 2 * limits.in_flight * limits.max_count)
        self._intake.hold(ledger.assigned if self._is_held else ledger.stuck(share))
        self._pauses.set(self._is_held)
        self._is_limited = not is_thirsty or is_full
        if not self._is_limited:
            room = limits.high_water - ledger.uncommitted
            return self._intake.poll(
                min(POLL_COUNT, room), BUSY_POLL_S if ledger.uncommitted else self._route.idle_poll_s
            )
        self._has_completed.wait(BUSY_POLL_S)
        return self._intake.poll(TRICKLE_COUNT, 0)

    def _take_in(self, messages: list[Message], stage: Stage) -> None:
        """Register and decode. A record without items is finished at once, such as a dead letter."""
        items: list[Item] = []
        finished: list[Finished] = []
        received: dict[str, int] = {}
        now_ms = int(time.time() * 1000)
        register, decode = self.ledger.register, self._decode
        origins: dict[tuple[str, int], TopicPartition] = {}
        for message in messages:
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            assert topic is not None and partition is not None and offset is not None  # noqa: PT018 - records have all
            origin = origins.get((topic, partition)) or origins.setdefault(
                (topic, partition), TopicPartition(topic, partition)
            )
            kind, timestamp_ms = message.timestamp()
            source = register(origin, offset, None if kind == TIMESTAMP_NOT_AVAILABLE else timestamp_ms, now_ms)
            if source is None:
                continue
            received[topic] = received.get(topic, 0) + 1
            read = decode(message, source)
            if isinstance(read, Finished):
                finished.append(read)
            else:
                items += read
        if items:
            self._submit(items)
        if finished:
            self._completed.append(finished)
            stage.link(record.headers for record in finished)
        stage.set({"guardline.events": len(items)})
        for topic, count in received.items():
            telemetry.RECEIVED.labels(topic).inc(count)

    def _collect(self) -> None:
        self._has_completed.clear()
        now = time.monotonic()
        while self._completed:
            stale = self.ledger.complete(self._completed.popleft(), now)
            if stale:
                telemetry.STALE.inc(stale)

    def _count_unread(self) -> None:
        resets = self._intake.log.resets
        while resets:
            self._counting.append(self._questions.ask(partial(count_unread, resets.pop())))
        while self._counting and self._counting[0].done():
            self._counting.popleft().result()

    def _commit(
        self, deadline: float, *, limit: int | None = None, positions: Mapping[TopicPartition, int] | None = None
    ) -> None:
        most = 4 * self._route.commit.max_count
        prefix = self.ledger.take(most if limit is None else limit, positions)  # 2
        if not prefix:
            return
        self._topics.check(time.monotonic())
        started = time.monotonic()
        with (self._stages if len(prefix) else UNTRACED).stage("commit") as stage:
            is_committed = self._outbox.commit(self.ledger, prefix, self._intake.consumer, deadline)  # 3 to 7
            stage.set({"guardline.records": len(prefix), "guardline.committed": is_committed})
            stage.follow(record.trace for record in prefix.records())
        if not is_committed:
            telemetry.TRANSACTIONS.labels("aborted").inc()
            return
        now = time.monotonic()
        self.ledger.settle(prefix, now)
        if records := list(prefix.records()):
            self._committed(records)  # 8
            count_committed(records, time.time())
        telemetry.TRANSACTIONS.labels("committed").inc()
        telemetry.COMMIT_SECONDS.observe(now - started)

    def _before_revoke(self) -> None:
        """Commit. A thread that works alone ends instead: only during its drain may another one take over.

        Raises:
            Fatal: partitions of a thread that works alone go to another member.
        """
        if self._route.is_single and self._stop_by is None:
            raise Fatal(TAKEN_OVER)
        self._commit_before_revoke()

    def _commit_before_revoke(self) -> None:
        kafka = self._route.kafka
        deadline = time.monotonic() + min(REVOKE_SHARE * kafka.max_poll_interval_s, kafka.transaction_timeout_s)
        self._collect()
        self._commit(min(deadline, self._drain_deadline()))

    def _drain_deadline(self) -> float:
        """The end of a drain's grace period, but at least `LAST_COMMIT_S` from now: the last commit needs time."""
        return float("inf") if self._stop_by is None else max(self._stop_by, time.monotonic() + LAST_COMMIT_S)
