"""Sends the deliveries of one endpoint: takes what may be sent, calls, and decides what each answer means for them.

It runs in the event loop and knows nothing of Kafka. A delivery that ends is handed on at once.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from workers import telemetry
from workers.actions.breaker import Breaker, State
from workers.actions.delivery import Answer, Call, Delivery, Meaning, Result
from workers.actions.format import Format
from workers.actions.letters import FORGOTTEN
from workers.actions.schedule import Schedule
from workers.core.records import Source
from workers.errors import Unavailable
from workers.settings.action_sections import Endpoint

log = structlog.get_logger(__name__)

MAX_REFUSALS = 3
"""How often a delivery is sent that the endpoint refuses. A deployment may answer 404 for a moment."""

GONE = "the endpoint answered 410 Gone to another delivery, so this one was not sent"


Ended = Callable[[Delivery, str | None], None]
"""Takes a delivery that has ended: the reason is None if it was accepted, else why it was given up. Must not block."""


class Calls(Protocol):
    """Makes calls: `Client.send`."""

    async def send(self, call: Call) -> Answer:
        """Make one call. Raises `Unavailable` if there is no answer."""


class Sender:
    """The deliveries of one endpoint, from `submit` to `ended`.

    Guarantee: each submitted delivery ends once, unless its partition is revoked: then it is dropped. Deliveries with
    one key are sent in the order in which they were submitted, and each only after the one before has ended. A delivery
    ends when the endpoint has accepted it, is given up, or its author was forgotten. Never blocks.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        form: Format,
        client: Calls,
        *,
        ended: Ended,
        is_current: Callable[[Source], bool],
        is_forgotten: Callable[[Delivery], bool],
        gone: Callable[[], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        """`gone` is called once, if the endpoint answers 410 Gone: it then gets no more calls. It must not block."""
        self._endpoint = endpoint
        self._format = form
        self._client = client
        self._ended = ended
        self._is_current = is_current
        self._is_forgotten = is_forgotten
        self._gone = gone
        self._fail = fail
        self._schedule = Schedule()
        self._breaker = Breaker(endpoint.retry.first_s, endpoint.retry.max_s)
        self._calls: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._accepted = 0
        self._loop = asyncio.get_running_loop()
        self._attempts = {meaning: telemetry.ATTEMPTS.labels(endpoint.name, meaning) for meaning in Meaning}
        self._call_seconds = telemetry.CALL_SECONDS.labels(endpoint.name)
        self._is_stopping = False
        telemetry.BREAKER_OPEN.labels(endpoint.name).set_function(lambda: self._breaker.state is not State.CLOSED)
        telemetry.ENDPOINT_GONE.labels(endpoint.name).set_function(lambda: self._breaker.state is State.GONE)
        telemetry.WAITING.labels(endpoint.name).set_function(lambda: self._schedule.waiting)
        telemetry.OLDEST_DELIVERY_SECONDS.labels(endpoint.name).set_function(self.oldest_s)

    @property
    def waiting(self) -> int:
        """The deliveries that have not ended."""
        return self._schedule.waiting

    @property
    def is_idle(self) -> bool:
        """Whether no call is in flight, and none can be made now."""
        return not self._calls and not (
            self._schedule.has_ready and self._breaker.state is State.CLOSED and self._breaker.permits(time.monotonic())
        )

    @property
    def state(self) -> State:
        """The state of the endpoint's breaker."""
        return self._breaker.state

    def is_held(self, longer_than_s: float) -> bool:
        """Whether the breaker is open, or the endpoint wants no call for longer than this."""
        return self._breaker.state is not State.CLOSED or self._breaker.until - time.monotonic() > longer_than_s

    def oldest_s(self) -> float:
        """Return the age of the oldest delivery that has not ended, in seconds since its record was written."""
        oldest = min((delivery.at_ms for delivery in self._schedule.first()), default=None)
        return 0.0 if oldest is None else max(0.0, time.time() - oldest / 1000)

    def submit(self, deliveries: Sequence[Delivery]) -> None:
        """Take deliveries. Those of one key are sent in this order."""
        for delivery in deliveries:
            self._schedule.add(delivery)
        self._go_on()

    def stop(self) -> None:
        """Make no further calls. Calls in flight go on."""
        self._is_stopping = True

    async def close(self) -> None:
        """Cancel all calls. Their deliveries do not end."""
        self.stop()
        self._set_timer(None)
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls)

    def _go_on(self) -> None:
        """Make as many calls as are permitted now, and come back when the next one may be."""
        while not self._is_stopping:
            if self._breaker.state is State.GONE:
                self._give_up_all()
                return
            now = time.monotonic()
            batch = self._batch(now)
            if not batch:
                self._set_timer(self._next_at(now))
                return
            self._breaker.called()
            call = self._loop.create_task(self._attempt(batch))
            self._calls.add(call)
            call.add_done_callback(self._called)

    def _batch(self, now: float) -> list[Delivery]:
        if len(self._calls) >= self._endpoint.concurrency or not self._breaker.permits(now):
            return []
        while True:
            batch = self._schedule.take(self._format.max_batch, now)
            if not batch and self._breaker.state is State.OPEN:
                # Each delivery waits on its own, and the probe of an endpoint should not wait for them.
                batch = self._schedule.take_early()
            current: list[Delivery] = []
            for delivery in batch:
                if not self._is_current(delivery.source):
                    self._schedule.remove(delivery)  # Its partition was revoked: the next owner sends it.
                elif self._is_forgotten(delivery):
                    self._end(delivery, FORGOTTEN)
                else:
                    current.append(delivery)
            if current or not batch:
                return current

    def _next_at(self, now: float) -> float | None:
        if len(self._calls) >= self._endpoint.concurrency or not self._schedule.waiting:
            return None  # The end of a call, or the next delivery, comes first.
        permitted_at = self._breaker.until
        if self._schedule.has_ready or self._breaker.state is State.OPEN:
            return permitted_at if permitted_at > now else None
        at = self._schedule.next_at
        return None if at is None else max(at, permitted_at)

    def _set_timer(self, at: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if at is not None and at != float("inf"):
            self._timer = self._loop.call_later(max(0.0, at - time.monotonic()), self._go_on)

    def _called(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if call.cancelled():
            return
        if (error := call.exception()) is not None:
            self._fail(error)
            return
        self._go_on()

    async def _attempt(self, batch: list[Delivery]) -> None:
        now_s = time.time()
        for delivery in batch:
            delivery.attempts += 1
            delivery.last_attempt_ms = int(now_s * 1000)
            if delivery.attempts == 1:
                delivery.first_attempt_ms = delivery.last_attempt_ms
                delivery.accepted_before = self._accepted
        status = None
        began = time.monotonic()
        try:
            answer = await self._client.send(self._format.call(batch, now_s))
        except Unavailable as error:
            results: Sequence[Result] = [Result(Meaning.FAILED, str(error))] * len(batch)
        except Exception as error:
            results = self._failed("the call cannot be made", error, batch)
        else:
            status = answer.status
            results = self._meaning(batch, answer)
        now = time.monotonic()
        self._call_seconds.observe(now - began)
        self._judge_endpoint(results, now)
        for delivery, result in zip(batch, results, strict=True):
            delivery.status = status
            self._attempts[result.meaning].inc()
            self._end_or_repeat(delivery, result, now)

    def _meaning(self, batch: Sequence[Delivery], answer: Answer) -> Sequence[Result]:
        """Read an answer. An unforeseen one must not end the calls to the other endpoints."""
        try:
            return self._format.read(batch, answer)
        except Exception as error:
            return self._failed(f"the answer {answer.status} cannot be read", error, batch)

    def _failed(self, what: str, error: Exception, batch: Sequence[Delivery]) -> Sequence[Result]:
        said = f"{what} because of an error in this program"
        log.error(said, endpoint=self._endpoint.name, error=type(error).__name__)
        return [Result(Meaning.FAILED, f"{said} ({type(error).__name__})")] * len(batch)

    def _judge_endpoint(self, results: Sequence[Result], now: float) -> None:
        """Tell the breaker what a call means for the endpoint."""
        name = self._endpoint.name
        for result in results:
            if result.after_s is not None:
                self._breaker.pause(now, result.after_s)
        if any(result.meaning is Meaning.GONE for result in results):
            if self._breaker.end():
                self._gone()
        elif any(result.meaning is Meaning.ACCEPTED for result in results):
            if self._breaker.accepted():
                log.info("the endpoint accepts deliveries again", endpoint=name)
                self._schedule.release()
        elif all(result.is_about_content for result in results):
            self._breaker.undecided()
        elif self._breaker.failed(now):
            log.warning(
                "the endpoint fails: no calls for a while, and then one at a time",
                endpoint=name,
                reason=results[0].reason,
            )

    def _end_or_repeat(self, delivery: Delivery, result: Result, now: float) -> None:
        if result.meaning is Meaning.ACCEPTED:
            self._accepted += 1
            self._end(delivery, None)
            return
        delivery.reason = result.reason
        delivery.is_single = result.is_single
        if result.meaning is Meaning.GONE:
            self._end(delivery, "gone")
            return
        is_alone = self._accepted > delivery.accepted_before
        delivery.accepted_before = self._accepted
        delivery.alone += is_alone
        # Otherwise the endpoint refuses everything, as with a wrong token: then deliveries wait for a person.
        delivery.refusals += result.meaning is Meaning.REFUSED and (is_alone or result.is_about_content)
        retry = self._endpoint.retry
        if delivery.refusals >= MAX_REFUSALS:
            self._end(delivery, "refused")
        elif delivery.alone >= retry.max_attempts or (
            delivery.last_attempt_ms - delivery.first_attempt_ms >= retry.give_up_after_s * 1000
        ):
            self._end(delivery, "expired")
        else:
            longest_s = min(retry.first_s * 2.0 ** min(delivery.attempts - 1, 30), retry.max_s)
            # Full jitter: what failed together does not come again together.
            self._schedule.again(delivery, now + random.uniform(0, longest_s))  # noqa: S311

    def _end(self, delivery: Delivery, reason: str | None) -> None:
        self._schedule.remove(delivery)
        if reason is not None and self._is_forgotten(delivery):
            reason = FORGOTTEN
        self._ended(delivery, reason)

    def _give_up_all(self) -> None:
        """Give up everything that is not in flight, because the endpoint is gone."""
        self._set_timer(None)
        self._schedule.release()
        while batch := self._schedule.take(1, time.monotonic()):
            (delivery,) = batch
            delivery.reason = delivery.reason or GONE
            if self._is_current(delivery.source):
                self._end(delivery, "gone")
            else:
                self._schedule.remove(delivery)
