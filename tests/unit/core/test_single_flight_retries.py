"""How long a work in flight may be joined and retried."""

from __future__ import annotations

import math

import pytest

from schemas.event import EventDict
from workers.core.records import Source, TopicPartition
from workers.core.single_flight import SingleFlight, Work, deadline_of

BODY: EventDict = {"event_id": "e", "tenant_id": "acme", "surface": "chat", "text": "hello"}
PATIENCE_S = 10.0


def join(single_flight: SingleFlight[str], now: float, key: bytes = b"k") -> Work[str]:
    return single_flight.join(key, BODY, Source(TopicPartition("t", 0), 1, 0), PATIENCE_S, "flight", now)


@pytest.fixture
def single_flight() -> SingleFlight[str]:
    return SingleFlight(lambda _: True)


@pytest.mark.parametrize(("at", "is_joined"), [(1.5, True), (4.9, True), (5.0, True), (5.1, False), (6.5, False)])
def test_failed_work_can_be_joined_while_half_of_the_timeout_is_left(
    single_flight: SingleFlight[str], at: float, is_joined: bool
) -> None:
    work = join(single_flight, 0.0)
    single_flight.begin([work], 0.0)
    single_flight.fail([work], 1.0)
    assert (join(single_flight, at) is work) == is_joined


@pytest.mark.parametrize("at", [1.0, 5.1, 9.9, 50.0])
def test_work_that_has_not_failed_can_always_be_joined(single_flight: SingleFlight[str], at: float) -> None:
    work = join(single_flight, 0.0)
    single_flight.begin([work], 0.0)
    assert join(single_flight, at) is work


def test_a_waiter_that_joined_shortly_before_a_failure_has_half_of_its_timeout_left(
    single_flight: SingleFlight[str],
) -> None:
    work = join(single_flight, 0.0)
    single_flight.begin([work], 0.0)
    join(single_flight, 8.0)
    assert work.deadline == PATIENCE_S
    single_flight.fail([work], 9.0)
    assert work.deadline == 8.0 + PATIENCE_S / 2


def test_works_are_retried_until_the_last_open_deadline(single_flight: SingleFlight[str]) -> None:
    works = [join(single_flight, 0.0, key) for key in (b"a", b"b", b"c")]
    for begun_at, work in enumerate(works):
        single_flight.begin([work], float(begun_at))
    assert deadline_of(works) == 2.0 + PATIENCE_S
    single_flight.settle(works[2], {})
    assert deadline_of(works) == 1.0 + PATIENCE_S
    assert single_flight.begin([works[2], works[0]], 3.0) == [works[0]]
    for work in works[:2]:
        single_flight.settle(work, None)
    assert deadline_of(works) == -math.inf
