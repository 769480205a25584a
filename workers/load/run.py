"""Sends a load by its schedule, and reads what becomes visible. It never waits for a verdict before it sends.

So a group that falls behind shows it in the latencies, and does not slow the load down.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from workers.core.frames import split
from workers.core.records import TopicPartition
from workers.errors import Misconfigured
from workers.kafka.intake import headers_of
from workers.kafka.reader import read
from workers.kafka.route import of_moderation
from workers.kafka.sending import Sending, topic_of
from workers.kafka.topics import require_inputs
from workers.load.records import Made, Mix, Records
from workers.load.schedule import Piece, due
from workers.load.tally import Outcome, Position, Second, Tally
from workers.settings import Settings

LINGER_MS = 2
READ_WAIT_S = 0.02
"""How long a record may wait for others of its request, and of its fetch. Both are a part of the measured latency."""

TURN_S = 0.01
"""How long an outcome may wait until it is counted. Its time is noted when it arrives."""

RUN_HEADER = "load"
"""The header of each record that names its load. A dead letter keeps the headers of its record."""


@dataclass(frozen=True)
class Load:
    """What to send and when, and how long to wait for the last outcomes. `count`: at most so many records."""

    pieces: Sequence[Piece]
    mix: Mix
    count: int | None = None
    wait_s: float = 30.0


def run(
    settings: Settings,
    load: Load,
    *,
    interrupts: Callable[[], int] = lambda: 0,
    each_second: Callable[[Second], None] = lambda _: None,
    accepted: Callable[[Position, Made], None] = lambda *_: None,
) -> dict[str, Any]:
    """Send the load, read the verdicts and dead letters of its records, and return the summary.

    It ends when each record has an outcome, or `wait_s` after the last record was sent. `interrupts` returns how often
    it was asked to end: at 1 it sends no more, at 2 it does not wait either. A latency is the time from sending a
    record until a read_committed reader has its outcome. `accepted` gets each record that a broker has taken. Blocks;
    calls these functions in this thread.

    Raises:
        Unavailable: Kafka or a topic is not available.
        Misconfigured: Kafka refuses this client, or `events.mapping` is set.
        Fatal: a record was refused, or Kafka stopped answering.
    """
    if settings.events.mapping is not None:
        raise Misconfigured(
            "events.mapping is set, and `guardline load` sends events as docs/events.md describes them: run the load "
            "and its workers without a mapping"
        )
    inputs = require_inputs(of_moderation(settings))
    name = secrets.token_hex(4)
    records = Records(load.mix, name)
    outcomes = _Outcomes(settings, name, records)
    outcomes.start()
    try:
        outcomes.wait_until_reading()
        began = time.monotonic()
        tally = Tally(began)
        with Sending(settings.kafka, linger_ms=LINGER_MS) as sending:

            def turn(until: float, allowed: int) -> bool:
                """Take what the brokers say until a time, at least once; return whether to go on.

                More than `allowed` interrupts end it.
                """
                while True:
                    sending.wait(max(0.0, min(until - time.monotonic(), TURN_S)))
                    sending.check()
                    outcomes.count_in(tally)
                    if time.monotonic() >= tally.reported + 1:
                        each_second(tally.second(time.monotonic()))
                    if interrupts() > allowed:
                        return False
                    if time.monotonic() >= until:
                        return True

            for at_s in islice(due(load.pieces), load.count):
                if not turn(began + at_s, 0):
                    break
                _send(sending, inputs, records.next(time.time()), name, tally, accepted)
            end = time.monotonic() + load.wait_s
            while (sending.unanswered or tally.waiting) and time.monotonic() < end:
                if not turn(time.monotonic() + TURN_S, 1):
                    break
        sending.check()
    finally:
        outcomes.stop()
    outcomes.count_in(tally)
    return {**tally.summary(time.monotonic()), "is_stopped": interrupts() > 0}


def _send(
    sending: Sending,
    inputs: Sequence[str],
    record: Made,
    name: str,
    tally: Tally,
    accepted: Callable[[Position, Made], None],
) -> None:
    sent = time.monotonic()

    def taken(origin: TopicPartition, offset: int) -> None:
        position = Position(*origin, offset)
        tally.accepted(position, sent)
        accepted(position, record)

    sending.send(topic_of(inputs, record.surface), record.key, record.value, taken, {RUN_HEADER: name})


class _Outcomes(threading.Thread):
    """Reads the verdicts and dead letters of one load, and notes when each of them became visible."""

    def __init__(self, settings: Settings, name: str, records: Records) -> None:
        super().__init__(name="outcomes", daemon=True)
        self._settings = settings
        self._name = name.encode()
        self._records = records
        self._found = deque[Outcome]()
        self._is_reading = threading.Event()
        self._is_over = False
        self._failure: Exception | None = None

    def run(self) -> None:
        """Read until `stop`."""
        topics = self._settings.topics
        outputs = [topics.verdicts, topics.dead_letters]
        try:
            for message in read(self._settings.kafka, outputs, from_beginning=False, follow=True, wait_s=READ_WAIT_S):
                now = time.monotonic()
                self._is_reading.set()
                if self._is_over:
                    break
                if message is None:
                    continue
                output = (str(message.topic()), int(message.partition() or 0))
                if output[0] == topics.dead_letters:
                    self._dead_letter(dict(headers_of(message)), output, now)
                else:
                    self._verdict(message.value() or b"", output, now)
        except Exception as error:  # The thread that counts raises it.
            self._failure = error
            self._is_reading.set()

    def wait_until_reading(self) -> None:
        """Wait until no outcome can be missed any more. Raises as `read`."""
        self._is_reading.wait()
        self._raise()

    def count_in(self, tally: Tally) -> None:
        """Count what was found since the last call. Raises as `read`."""
        while self._found:
            tally.visible(self._found.popleft())
        self._raise()

    def stop(self) -> None:
        """End within a moment."""
        self._is_over = True
        self.join()

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _verdict(self, value: bytes, output: tuple[str, int], now: float) -> None:
        try:
            verdict = orjson.loads(split(value)[1])
            if not self._records.has_made(verdict["event_id"]):
                return
            source = verdict["source"]
            at = Position(source["topic"], source["partition"], source["offset"])
            self._found.append(Outcome(at, output, now, verdict["decision"], verdict["duplicate_of"] is not None))
        except (orjson.JSONDecodeError, LookupError, TypeError):
            return  # Another program writes to topics.verdicts.

    def _dead_letter(self, headers: dict[str, bytes | None], output: tuple[str, int], now: float) -> None:
        if headers.get(RUN_HEADER) != self._name:
            return
        topic, partition, offset = (headers[f"source.{name}"] or b"" for name in ("topic", "partition", "offset"))
        at = Position(topic.decode(), int(partition), int(offset))
        self._found.append(Outcome(at, output, now, None, False))
