"""Reads the ends of partitions whose leader moves. No broker can be made to answer so at a chosen moment."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition

from workers.errors import Unavailable
from workers.kafka import clients, reader

PARTITION = TopicPartition("verdicts", 0)


class End:
    offset = 7


class Scripted:
    """An admin client that answers with these errors first."""

    def __init__(self, *errors: int) -> None:
        self._errors: Iterator[int] = iter(errors)
        self.looked = 0

    def list_topics(self, timeout: float) -> None:
        self.looked += 1

    def list_offsets(self, partitions: Any, **_: Any) -> dict[TopicPartition, Future[End]]:
        answer: Future[End] = Future()
        code = next(self._errors, None)
        if code is None:
            answer.set_result(End())
        else:
            answer.set_exception(KafkaException(KafkaError(code)))
        return dict.fromkeys(partitions, answer)


def ends(admin: Any) -> dict[tuple[str, int], int]:
    return reader.ends(admin, [PARTITION], IsolationLevel.READ_COMMITTED)


def test_a_partition_without_a_leader_is_asked_again_after_a_look_for_the_new_one() -> None:
    admin = Scripted(KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION)
    assert ends(admin) == {("verdicts", 0): 7}
    assert admin.looked == 2


def test_another_error_ends_the_read_at_once() -> None:
    with pytest.raises(Unavailable, match="cannot read the ends of a topic"):
        ends(Scripted(KafkaError.UNKNOWN_TOPIC_OR_PART))


def test_a_leader_that_does_not_come_ends_the_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "ANSWER_S", 0.3)
    with pytest.raises(Unavailable, match="Not leader"):
        ends(Scripted(*[KafkaError.NOT_LEADER_FOR_PARTITION] * 100))
