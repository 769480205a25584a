from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from pydantic import ValidationError
from structlog.testing import capture_logs

from tests.shown import shown
from workers.errors import Unavailable
from workers.kafka.input_topics import EVERY_S, LEFT_OUT, Look, NewTopics, matching
from workers.kafka.route import Route, of_moderation
from workers.settings import Settings, Topics

PRESENT = [
    "chat",
    "moderation.b",
    "moderation.a",
    "moderation.verdicts",
    "moderation.forget",
    "__consumer_offsets",
    f"{Settings().kafka.group}.aggregates-updates",
    f"{Settings().kafka.group}.aggregates-rows-changelog",
]


def reading(*inputs: str) -> Route:
    return of_moderation(Settings(topics=Topics(inputs=list(inputs))))


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        (["chat"], ["chat"]),
        ([r"^moderation\..*"], ["moderation.a", "moderation.b"]),
        (["chat", r"^moderation\.[ab]$", "^ch"], ["chat", "moderation.a", "moderation.b"]),
        (["moderation.b", "^moderation"], ["moderation.b", "moderation.a"]),
        (["missing", "^chat$"], ["missing", "chat"]),
        (["^"], ["chat", "moderation.a", "moderation.b"]),
        (["^.*"], ["chat", "moderation.a", "moderation.b"]),
        (["^__"], None),
        (["^moderation$", "^x"], None),
    ],
)
def test_a_pattern_matches_no_topic_of_a_worker_and_no_internal_topics(
    inputs: list[str], found: list[str] | None
) -> None:
    route = reading(*inputs)
    if found is None:
        with pytest.raises(Unavailable, match="no topic in Kafka matches"):
            matching(route, PRESENT)
        return
    assert matching(route, PRESENT) == found
    assert [name for name in PRESENT if route.is_input(name)] == [name for name in PRESENT if name in found]


class Answers:
    """Gives prepared looks at topics, in the place of brokers; None stands for a failure."""

    def __init__(self, *answers: Look | None) -> None:
        self._answers = list(answers)

    def ask(self, _: Callable[..., Any]) -> Future[Any]:
        future: Future[Any] = Future()
        if (answer := self._answers.pop(0)) is None:
            future.set_exception(KafkaException(KafkaError(KafkaError._TRANSPORT)))
        else:
            future.set_result(answer)
        return future


def test_new_topics_are_reported_once_together_with_the_known_ones() -> None:
    looks = (
        None if names is None else Look(names, set()) for names in (["a"], None, ["a", "b"], ["b"], ["b", "c"], [])
    )
    answers = Answers(*looks)
    new = NewTopics(reading("^."), ["a"], answers)  # type: ignore[arg-type]  # the part that it uses
    found = [new.look(look * EVERY_S / 2) for look in range(12)]
    assert [topics for topics in found if topics] == [["a", "b"], ["a", "b", "c"]]


def test_a_topic_that_may_not_be_read_is_named_once_and_read_as_soon_as_it_may() -> None:
    looks = (Look(["a"], {"b"}), Look(["a"], {"b"}), Look(["a"], {"b", "c"}), Look(["a", "b"], {"c"}))
    new = NewTopics(reading("^."), ["a"], Answers(*looks))  # type: ignore[arg-type]  # the part that it uses
    with capture_logs() as lines:
        found = [new.look(look * EVERY_S / 2) for look in range(8)]
    assert [topics for topics in found if topics] == [["a", "b"]]
    assert [line["topics"] for line in lines if line["event"] == LEFT_OUT] == [["b"], ["c"]]
    assert shown("guardline_unreadable_topics", group=reading("a").group) == 1


def test_the_brokers_are_not_asked_without_a_pattern() -> None:
    assert NewTopics(reading("a"), ["a"], Answers()).look(0) == []  # type: ignore[arg-type]


def test_a_pattern_that_is_not_a_regular_expression_is_refused_with_the_setting() -> None:
    with pytest.raises(ValidationError, match=r"topics.inputs: '\^\(' is not a regular expression: missing \), "):
        Topics(inputs=["^("])
