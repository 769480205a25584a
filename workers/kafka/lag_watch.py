"""Keeps the lag up to date, and shows it to each scrape. Owned by the Kafka thread, and never blocks.

The consumer's statistics have the ends of partitions without a request, but only of partitions that it fetches. While
backpressure limits the intake, the lag grows and the consumer fetches little. Then this module asks a broker. A
partition that was assigned meanwhile has no position yet: it is behind by what follows its start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from confluent_kafka import IsolationLevel, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from workers import telemetry
from workers.core.lag import Lag
from workers.core.records import TopicPartition
from workers.kafka.questions import ANSWER_S, Questions, answer_of
from workers.kafka.route import Route

LOOK_S = 0.25
"""How often the lag is worked out: with a hundred partitions it takes 0.1 ms."""

ASK_S = 2.0
"""How often a broker is asked. The consumer's statistics are as old."""


class LagWatch:
    """Works out the lag every `LOOK_S`."""

    def __init__(
        self, lag: Lag, questions: Questions, starts: Callable[[], Mapping[TopicPartition, int]], route: Route
    ) -> None:
        self._lag = lag
        self._questions = questions
        self._starts = starts
        self._looks_at = 0.0
        self._asks_at = 0.0
        self._answer: Future[dict[TopicPartition, int]] | None = None
        _show(lag, route)

    def check(self, now: float, assigned: Sequence[TopicPartition], *, is_limited: bool) -> None:
        """Work out the lag if it is time. `is_limited`: the intake takes less than there is."""
        if now < self._looks_at:
            return
        self._looks_at = now + LOOK_S
        if self._answer is not None and self._answer.done():
            if (ends := answer_of(self._answer)) is not None:
                self._lag.learn(ends)
            self._answer = None
        if self._answer is None and now >= self._asks_at:
            if not is_limited:
                self._lag.learn({})
            elif assigned:
                self._asks_at = now + ASK_S
                self._answer = self._questions.ask(lambda admin: ends_of(admin, assigned))
        self._lag.start_at(self._starts())
        self._lag.look(time.time())


def ends_of(admin: AdminClient, origins: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Return the end of each partition for `read_committed`. A partition without an answer is left out. Blocks."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the library's own
    wanted = {KafkaPartition(*origin): latest for origin in origins}
    answers = admin.list_offsets(wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=ANSWER_S)
    ends: dict[TopicPartition, int] = {}
    for partition, answer in answers.items():
        try:
            ends[TopicPartition(partition.topic, partition.partition)] = answer.result().offset
        except KafkaException:
            continue
    return ends


def _show(lag: Lag, route: Route) -> None:
    """Let each scrape read the lag. Ages grow between two looks, also while the Kafka thread waits for a broker."""

    group, target_s = route.group, route.target_s

    def age_of(moment: float | None) -> float:
        return 0.0 if moment is None else max(0.0, time.time() - moment)

    telemetry.LAG_RECORDS.labels(group).set_function(lambda: lag.records)
    telemetry.LAG_SECONDS.labels(group).set_function(lambda: age_of(lag.oldest_s))
    telemetry.OLDEST_UNCOMMITTED_SECONDS.labels(group).set_function(lambda: age_of(lag.oldest_received_s))
    telemetry.OLDEST_DEADLINE_SECONDS.labels(group).set_function(lambda: target_s - age_of(lag.oldest_s))
