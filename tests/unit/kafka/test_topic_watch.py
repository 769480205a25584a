"""The meaning of answers about topic ids; tests/chaos/test_outages.py deletes and creates real topics again."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from workers.core.records import TopicPartition
from workers.errors import Fatal
from workers.kafka.topic_watch import EVERY_S, ConsumerLog, TopicWatch

ZERO = "A" * 22
ONE, TWO = "XeTJArssRSKEyslW118mWA", "tNDOSwDkR76o5rKchKrwWw"


class Answers:
    """Returns prepared answers instead of brokers."""

    def __init__(self, *answers: dict[str, str | None] | Exception | None) -> None:
        self._answers = list(answers)

    def ask(self, _: Callable[..., Any]) -> Future[Any]:
        future: Future[Any] = Future()
        answer = self._answers.pop(0)
        if answer is None:
            future.set_exception(KafkaException(KafkaError(KafkaError._TRANSPORT)))
        elif isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future


def watch(*answers: dict[str, str | None] | None) -> None:
    """Check once for each answer, and once more for the last one."""
    topics = TopicWatch(["t"], ConsumerLog(), Answers(*answers, {}))  # type: ignore[arg-type]  # the part that it uses
    for look in range(len(answers) + 1):
        topics.check(look * EVERY_S)


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ([{"t": ONE}, {"t": TWO}], f"t was deleted and created again: its id changed from {ONE} to {TWO}"),
        ([{"t": ONE}, {"t": None}, {"t": TWO}], "created again"),
        ([{"t": ONE}, None, {}, {"t": TWO}], "created again"),
        ([{"t": ONE}, {"t": None}, {"t": None}], "t was deleted: create it again"),
    ],
)
def test_a_topic_with_another_id_or_without_one_ends_the_worker(
    answers: list[dict[str, str | None] | None], sentence: str
) -> None:
    with pytest.raises(Fatal, match=sentence):
        watch(*answers)


def test_one_answer_without_the_topic_does_not_end_the_worker() -> None:
    watch({"t": ONE}, {"t": None}, None, {"t": ONE}, {"t": None}, {}, {"t": ONE})


def test_a_bug_in_a_question_is_not_taken_for_brokers_that_do_not_answer() -> None:
    topics = TopicWatch(["in"], ConsumerLog(), Answers(ValueError("a bug"), None))  # type: ignore[arg-type]
    topics.check(0)
    with pytest.raises(ValueError, match="a bug"):
        topics.check(EVERY_S)


@pytest.mark.parametrize(("before", "now", "is_new"), [(ZERO, ONE, False), (ONE, TWO, True), (ONE, ZERO, False)])
def test_the_consumers_log_shows_that_a_topic_was_created_again(before: str, now: str, is_new: bool) -> None:
    log = ConsumerLog()
    text = f"[thrd:main]: Topic in changed id from {before} to {now}"
    log.log(10, "%s [%s] %s", "METADATA", "rdkafka#consumer-1", text)
    assert (log.made_again is not None) is is_new


def test_the_consumers_log_shows_which_offset_did_not_exist() -> None:
    log = ConsumerLog()
    reset = "(at offset {} (leader epoch 0), broker 1) to offset BEGINNING (leader epoch -1): "
    out = (
        "[thrd:main]: in.chat [3]: offset reset "
        + reset.format(5)
        + "fetch failed due to ...: Broker: Offset out of range"
    )
    new = (
        "[thrd:main]: in.chat [3]: offset reset " + reset.format("INVALID") + "no previously committed offset available"
    )
    log.log(30, "%s [%s] %s", "OFFSET", "rdkafka#consumer-1", out)
    log.log(10, "%s [%s] %s", "OFFSET", "rdkafka#consumer-1", new)
    assert log.resets == [(TopicPartition("in.chat", 3), 5)]
