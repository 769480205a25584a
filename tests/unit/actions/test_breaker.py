"""The breaker opens after failures in a row, lets one probe through, and closes when an endpoint accepts again."""

from __future__ import annotations

import pytest

from workers.actions.breaker import LONGEST_S, OPENS_AFTER, Breaker, State


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(1, 300)
    for _ in range(OPENS_AFTER):
        breaker.failed(now)
    return breaker


def test_it_opens_after_failures_in_a_row_and_says_so_once() -> None:
    breaker = Breaker(1, 300)
    assert [breaker.failed(0) for _ in range(OPENS_AFTER + 3)] == [*[False] * (OPENS_AFTER - 1), True, *[False] * 3]
    assert not breaker.permits(0)


def test_an_accepted_call_between_failures_keeps_it_closed() -> None:
    breaker = Breaker(1, 300)
    for _ in range(3 * OPENS_AFTER):
        breaker.failed(0)
        breaker.accepted()
    assert breaker.state is State.CLOSED
    assert breaker.permits(0)


def test_it_permits_one_probe_when_its_time_is_over() -> None:
    breaker = opened()
    assert breaker.until <= 1
    assert breaker.permits(1)
    breaker.called()
    assert (breaker.state, breaker.permits(1)) == (State.HALF_OPEN, False)
    assert breaker.accepted()
    assert (breaker.state, breaker.permits(1)) == (State.CLOSED, True)


def test_each_probe_that_fails_doubles_the_wait_up_to_the_longest() -> None:
    breaker = opened()
    waits = []
    for _ in range(10):
        now = breaker.until
        breaker.called()
        breaker.failed(now)
        waits.append(breaker.until - now)
    for number, wait_s in enumerate(waits, 1):
        longest_s = min(2.0**number, LONGEST_S)
        assert longest_s / 2 <= wait_s <= longest_s


def test_calls_that_were_in_flight_when_it_opened_do_not_make_it_wait_longer() -> None:
    breaker = opened()
    until = breaker.until
    for _ in range(100):
        breaker.failed(0.01)
    assert breaker.until == until


@pytest.mark.parametrize("failures", [0, OPENS_AFTER])
def test_a_pause_that_the_endpoint_asked_for_is_kept(failures: int) -> None:
    breaker = Breaker(1, 300)
    for _ in range(failures):
        breaker.failed(0)
    breaker.pause(0, 60)
    assert (breaker.permits(59.9), breaker.permits(60), breaker.until) == (False, True, 60)


def test_a_call_in_flight_that_is_accepted_does_not_end_a_pause() -> None:
    breaker = Breaker(1, 300)
    breaker.pause(0, 60)
    breaker.accepted()
    assert not breaker.permits(59)


def test_a_probe_whose_content_is_refused_is_followed_by_another_one() -> None:
    breaker = opened()
    breaker.called()
    breaker.undecided()
    assert breaker.state is State.OPEN
    assert breaker.permits(1)


def test_an_endpoint_that_is_gone_stays_so() -> None:
    breaker = Breaker(1, 300)
    breaker.end()
    breaker.accepted()
    breaker.failed(0)
    assert (breaker.state, breaker.permits(1e9), breaker.until) == (State.GONE, False, float("inf"))
