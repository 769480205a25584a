"""Deliveries of one key are taken one after the other, and those of different keys together."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.actions.deliveries import delivery
from workers.actions.delivery import Delivery
from workers.actions.schedule import Schedule


def test_only_the_first_delivery_of_a_key_is_taken() -> None:
    schedule = Schedule()
    first, second, other = delivery(0, "a"), delivery(1, "a"), delivery(2, "b")
    for one in (first, second, other):
        schedule.add(one)
    assert schedule.take(10, 0) == [first, other]
    assert schedule.take(10, 0) == []
    schedule.remove(first)
    assert schedule.take(10, 0) == [second]


def test_a_delivery_that_waits_holds_its_key_and_no_other() -> None:
    schedule = Schedule()
    first, second, other = delivery(0, "a"), delivery(1, "a"), delivery(2, "b")
    for one in (first, second, other):
        schedule.add(one)
    schedule.take(1, 0)
    schedule.again(first, at=5)
    assert schedule.take(10, 4.9) == [other]
    assert schedule.next_at == 5
    assert schedule.take(10, 5) == [first]


def test_a_delivery_that_has_to_be_alone_is_in_no_call_with_others() -> None:
    schedule = Schedule()
    several = [delivery(number) for number in range(4)]
    several[1].is_single = True
    for one in several:
        schedule.add(one)
    assert [schedule.take(10, 0) for _ in range(3)] == [several[:1], several[1:2], several[2:]]


def test_what_waits_can_be_released_and_taken_early() -> None:
    schedule = Schedule()
    for number in range(3):
        schedule.add(delivery(number))
    taken = schedule.take(3, 0)
    for wait_s, one in zip((9, 5, 7), taken, strict=True):
        schedule.again(one, at=wait_s)
    assert schedule.take_early() == [taken[1]]
    schedule.release()
    assert schedule.take(10, 0) == [taken[2], taken[0]]
    assert schedule.take_early() == []


@given(st.data())
def test_each_key_keeps_its_order_and_every_delivery_ends(data: st.DataObject) -> None:
    """Whatever fails and in whatever order calls end, a delivery is in flight only after the one before has ended."""
    schedule, now = Schedule(), 0.0
    left = [delivery(number, data.draw(st.sampled_from("abc"))) for number in range(data.draw(st.integers(1, 12)))]
    added = list(left)
    in_flight: list[Delivery] = []
    ended: dict[bytes, list[int]] = defaultdict(list)
    while left or schedule.waiting:
        now += 1
        if left and not data.draw(st.booleans()):
            schedule.add(left.pop(0))
        in_flight += schedule.take(data.draw(st.integers(1, 3)), now)
        assert len({one.key for one in in_flight}) == len(in_flight)
        if in_flight:
            one = in_flight.pop(data.draw(st.integers(0, len(in_flight) - 1)))
            if one.attempts < 2 and data.draw(st.booleans()):
                one.attempts += 1
                schedule.again(one, now + data.draw(st.integers(0, 3)))
            else:
                schedule.remove(one)
                ended[one.key].append(one.source.offset)
    expected: dict[bytes, list[int]] = defaultdict(list)
    for one in added:
        expected[one.key].append(one.source.offset)
    assert ended == expected
