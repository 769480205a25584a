"""When a broker is asked for the ends of partitions, and how long its answer counts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from confluent_kafka.admin import AdminClient

from workers.core.lag import End, Lag
from workers.core.ledger import Ledger
from workers.core.records import TopicPartition
from workers.kafka.lag_watch import ASK_S, LagWatch
from workers.kafka.questions import Questions
from workers.kafka.route import of_moderation
from workers.settings import Settings

A = TopicPartition("t", 0)


class Asked(Questions):
    """Keeps the questions; the test answers them."""

    def __init__(self) -> None:
        self.answers: list[Future[Any]] = []

    def ask(self, question: Callable[[AdminClient], Any]) -> Future[Any]:
        self.answers.append(Future())
        return self.answers[-1]


def watched(starts: dict[TopicPartition, int]) -> tuple[Lag, Asked, LagWatch]:
    ledger = Ledger()
    ledger.assign([A])
    lag, asked = Lag(ledger), Asked()
    return lag, asked, LagWatch(lag, asked, lambda: starts, of_moderation(Settings()))


def test_the_answer_of_a_broker_counts_only_while_the_intake_is_limited() -> None:
    """Else a log that was truncated would have its old lag for ever."""
    lag, asked, watch = watched({})
    lag.report({A: End(0, 8, 8)})
    watch.check(100, [A], is_limited=True)
    asked.answers[0].set_result({A: 500})
    watch.check(101, [A], is_limited=True)
    assert lag.records == 492
    watch.check(101.5, [A], is_limited=False)
    assert lag.records == 492, "the reports of the consumer may be older"
    watch.check(100 + ASK_S, [A], is_limited=False)
    assert lag.records == 0
    assert len(asked.answers) == 1


def test_a_partition_that_was_assigned_while_the_intake_is_held_counts_from_its_start() -> None:
    lag, asked, watch = watched({A: 40})
    watch.check(100, [A], is_limited=True)
    asked.answers[0].set_result({A: 500})
    watch.check(101, [A], is_limited=True)
    assert lag.records == 460
    assert lag.oldest_s is not None
