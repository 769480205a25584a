"""The two steps of the aggregates worker, as Faust agents: verdicts to the partitions of their rows, and into the rows.

Guarantee: a verdict changes each of its rows once, also if it is read again after a crash. A signal is written before
the row says so, at least once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from workers import telemetry
from workers.aggregates.counting import Counted, Counter
from workers.aggregates.faust_app import app_of
from workers.aggregates.rows import Key
from workers.aggregates.strike_writer import StrikeWriter
from workers.aggregates.table import Rows
from workers.aggregates.updates import Batch, Forget, Tick, Verdicts, decoded, encoded, partition_of
from workers.aggregates.upkeep import Upkeep
from workers.aggregates.verdicts import read, read_forget
from workers.errors import Fatal, GuardlineError, Unavailable
from workers.kafka.forgetting import Requests
from workers.kafka.internal_topics import Prepared, remedy
from workers.policy.strikes import CompiledStrikes
from workers.settings import Settings

log = structlog.get_logger(__name__)

BATCH = 500
"""Verdicts in one batch."""

BATCH_AGE_S = 0.05
RETRY_S = 1.0
GIVE_UP_S = 300.0
"""How long the requests to forget may be unreadable after an assignment. Nothing is counted in this time."""

LOOK_STEP = 500
"""Rows that are looked at before the event loop does something else."""


class Aggregation:
    """Counts verdicts until `stop`.

    `rules_of` gives the rules of a tenant's strikes. `fail` takes the error that ends the worker. `requests`
    are the requests to forget, as far as they were read before.
    """

    def __init__(
        self,
        settings: Settings,
        prepared: Prepared,
        *,
        rules_of: Callable[[str], CompiledStrikes | None],
        strikes: StrikeWriter,
        fail: Callable[[BaseException], None],
        requests: Requests,
    ) -> None:
        self._settings = settings
        self._prepared = prepared
        self._updates = prepared.updates
        self._strikes = strikes
        self._end = fail
        self._has_failed = False
        self.app = app = app_of(settings, prepared.group, prepared.partitions, lambda: self._has_failed)
        self._rows = Rows(app, partitions=prepared.partitions, max_rows=settings.aggregates.max_rows, fail=self._fail)
        self._requests = requests
        self._counter = Counter(settings.aggregates, rules_of, requests.known)
        self._batch = Batch(prepared.partitions)
        self._events: list[Any] = []
        self._has_batch = asyncio.Event()
        self._flushing = asyncio.Lock()
        self.upkeep = Upkeep(
            is_settled=lambda: not app.rebalancing and not app.in_recovery,
            unread=self._observe,
            tick=self._tick,
            look=self._look,
            look_every_s=settings.aggregates.rewrite_s,
            now_ms=_now_ms,
        )
        self._last_s = self._last_counted_s = time.time()
        self._assignment = self._known_at = 0
        self._knowing = asyncio.Lock()
        raw: dict[str, Any] = {
            "key_type": bytes,
            "value_type": bytes,
            "key_serializer": "raw",
            "value_serializer": "raw",
        }
        for topic, agent in (
            (settings.topics.verdicts, self._route),
            (prepared.updates, self._count),
            (settings.topics.forget, self._forget),
        ):
            app.agent(app.topic(topic, **raw), name=agent.__name__)(self._ending(agent))
        app.on_rebalance_complete.connect(self._on_assigned)

    @property
    def left(self) -> int:
        """The verdicts that were read and not handed over."""
        return len(self._events)

    async def start(self) -> None:
        """Join the group, and restore the rows of the partitions that this worker gets."""
        await self.app.start()

    async def watch(self) -> None:
        """Raise the error that ended Faust."""
        await self.app._crashed.wait()
        reason = self.app.crash_reason
        if isinstance(reason, GuardlineError):
            raise reason
        raise Fatal(f"the stream processor failed: {reason!r}") from reason

    async def drain(self) -> None:
        """Hand over the verdicts that were read."""
        await self._flush()

    async def stop(self) -> None:
        """Commit, and leave the group."""
        if self.app.started and not self.app.should_stop:
            await self.app.consumer.commit()
        await self.app.stop()

    async def flush_often(self) -> None:
        """Hand over a batch that is not full when it is `BATCH_AGE_S` old."""
        while True:
            await self._has_batch.wait()
            await asyncio.sleep(BATCH_AGE_S)
            await self._flush()

    async def rewrite_after_outages(self) -> None:
        """Write all strikes again when Redis answers after it did not."""
        while True:
            await self._strikes.has_lost.wait()
            self._strikes.has_lost.clear()
            self.upkeep.look_soon()

    def _ending(self, agent: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        """Let an error end the worker. Faust would start the agent again behind the record that failed."""

        async def run(stream: Any) -> None:
            try:
                await agent(stream)
            except Exception as error:
                self._has_failed = True
                self._end(error)
                raise

        return run

    async def _on_assigned(self, *_: object, **__: object) -> None:
        self._counter.begin(self._owned(self._updates))
        self._assignment += 1
        self.upkeep.look_soon()

    async def _tick(self, now_ms: int) -> None:
        for partition in self._owned(self._updates):
            await self._send(self._updates, encoded(Tick(now_ms)), partition)

    async def _look(self) -> None:
        await self._know_forgotten()
        count = 0
        partitions = self._prepared.partitions
        for name, row, place in self._rows.snapshot():
            partition = partition_of(name, partitions)
            if place is not None and place != partition:
                prepared, verdicts = self._prepared, self._settings.topics.verdicts
                raise Fatal(
                    f"kafka: a row of {prepared.changelog} is in partition {place} instead of {partition}: the "
                    "number of partitions was another one when it was written. "
                    f"{remedy(verdicts, prepared.group, prepared.updates, prepared.changelog)}"
                )
            standing = self._counter.look(name, row, partition, _now_ms())
            if standing is not None:
                self._strikes.put(*standing)
            count += 1
            if count % LOOK_STEP == 0:
                await asyncio.sleep(0)
        self._rows.count = count
        telemetry.ROWS.set(count)

    async def _know_forgotten(self) -> None:
        """Read new requests to forget, once for each assignment: another worker may have handled them for these rows.

        Returns when they are read, so no verdict is counted that a request covers.

        Raises:
            Fatal: they could not be read for `GIVE_UP_S`.
        """
        if self._known_at == self._assignment:
            return
        async with self._knowing:
            failed_at = None
            while self._known_at != (assignment := self._assignment):
                try:
                    await asyncio.to_thread(self._requests.read)
                    self._known_at = assignment
                except Unavailable as error:
                    if failed_at is None:
                        failed_at = time.monotonic()
                        log.warning("nothing is counted until the requests to forget can be read", error=str(error))
                    elif time.monotonic() - failed_at >= GIVE_UP_S:
                        raise Fatal(
                            f"topics.forget: nothing was counted for {GIVE_UP_S:.0f} s, because the requests to forget "
                            f"cannot be read: {error}"
                        ) from error
                    await asyncio.sleep(RETRY_S)

    async def _route(self, stream: Any) -> None:
        thread = self._settings.aggregates.thread.attribute
        async for event in stream.noack().events():
            message = event.message
            found = read(
                message.value,
                partition=message.partition,
                offset=message.offset,
                timestamp_ms=int((message.timestamp or 0) * 1_000),
                thread=thread,
            )
            if isinstance(found, str):
                telemetry.VERDICTS_SKIPPED.labels(found).inc()
            else:
                self.upkeep.has_read(found.seen.received_ms)
                self._batch.add(found)
            self._last_s = message.timestamp or self._last_s
            self._events.append(event)
            if len(self._events) >= BATCH:
                await self._flush()
            else:
                self._has_batch.set()

    async def _flush(self) -> None:
        async with self._flushing:
            batch, self._batch = self._batch, Batch(self._prepared.partitions)
            events, self._events = self._events, []
            self._has_batch.clear()
            for partition, value in batch.records(self._prepared.incarnation):
                await self._send(self._updates, value, partition)
            for event in events:
                event.ack()
            telemetry.VERDICTS_READ.inc(batch.verdicts)

    async def _count(self, stream: Any) -> None:
        async for event in stream.noack().events():
            message = event.message
            await self._know_forgotten()
            self._last_counted_s = message.timestamp or self._last_counted_s
            counted = self._counted(decoded(message.value), message.partition)
            for signal in counted.signals:
                await self.app.producer.send_and_wait(
                    self._settings.topics.signals, signal.key, signal.value, None, None, None
                )
                telemetry.SIGNALS.labels(signal.kind, signal.state).inc()
                log.info(
                    f"signal {signal.state}", kind=signal.kind, tenant=signal.tenant_id, threshold=signal.threshold_name
                )
            await self._rows.set(counted.rows, message.partition)
            for standing in counted.strikes:
                self._strikes.put(*standing)
            telemetry.ROW_UPDATES.labels("counted").inc(counted.counted)
            telemetry.ROW_UPDATES.labels("repeated").inc(counted.repeats)
            telemetry.ROW_UPDATES.labels("refused").inc(counted.refused)
            event.ack()

    def _counted(self, update: Verdicts | Tick | Forget, partition: int) -> Counted:
        match update:
            case Verdicts():
                return self._counter.verdicts(update, self._rows, partition, _now_ms())
            case Tick():
                return self._counter.tick(update, self._rows, partition, _now_ms())
            case Forget():
                return self._counter.forget(update, partition)

    async def _forget(self, stream: Any) -> None:
        async for event in stream.noack().events():
            author = read_forget(event.message.value)
            if author is None:
                telemetry.VERDICTS_SKIPPED.labels("junk").inc()
            else:
                tenant_id, author_id, until_ms = author
                key = Key("author", tenant_id, author_id).encoded()
                await self._flush()
                update = encoded(Forget(key, until_ms))
                await self._send(self._updates, update, partition_of(key, self._prepared.partitions))
            event.ack()

    async def _send(self, topic: str, value: bytes, partition: int) -> None:
        sent = await self.app.producer.send(topic, None, value, partition, None, None)
        sent.add_done_callback(self._sent)

    def _sent(self, sent: asyncio.Future[Any]) -> None:
        if not sent.cancelled() and (error := sent.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Commit nothing any more, and end the worker."""
        self._has_failed = True
        self._end(Fatal(f"kafka: a record could not be written: {error!r}"))

    def _owned(self, topic: str) -> list[int]:
        return sorted(tp.partition for tp in self.app.consumer.assignment() if tp.topic == topic)

    def _observe(self) -> int:
        """Set the metrics of the assignment; return how many verdicts the first step has not handed over yet."""
        consumer: Any = self.app.consumer
        owned = self._owned(self._settings.topics.verdicts)
        group = self._prepared.group
        telemetry.ASSIGNED.labels(group).set(len(owned))
        telemetry.IN_FORCE.set(self._counter.in_force)
        telemetry.ROWS.set(self._rows.count)
        lag, uncounted = len(self._events), 0
        for tp in consumer.assignment():
            if tp.topic == self._settings.topics.verdicts:
                lag += consumer.unread(tp)
            elif tp.topic == self._updates:
                uncounted += consumer.unread(tp)
        telemetry.LAG_RECORDS.labels(group).set(lag + uncounted)
        # What was not read yet is about as old as what was read last.
        begins = [last_s for last_s, unread in ((self._last_s, lag), (self._last_counted_s, uncounted)) if unread]
        telemetry.LAG_SECONDS.labels(group).set(max(0.0, time.time() - min(begins)) if begins else 0.0)
        return lag


def _now_ms() -> int:
    return int(time.time() * 1_000)
