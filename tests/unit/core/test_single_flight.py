"""Single flight alone: any order of joins, attempts, failures, revokes and time."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from schemas.event import EventDict
from workers.core.records import Source, TopicPartition
from workers.core.single_flight import SingleFlight, Work, deadline_of

RETRY_TIMES_S = (4.0, 40.0)
PARTITIONS = [TopicPartition("t", number) for number in range(3)]

retry_times = st.sampled_from(RETRY_TIMES_S)
partitions = st.integers(0, 2)
keys = st.sampled_from([b"a", b"b", b"c"])


def body_of(key: bytes) -> EventDict:
    return {"event_id": "e", "tenant_id": "acme", "surface": "chat", "text": key.decode()}


class Waiter:
    """A position that joined, and the answer that it must get."""

    def __init__(self, work: Work[int], key: bytes, retry_s: float, joined_at: float) -> None:
        self.work = work
        self.key = key
        self.retry_s = retry_s
        self.joined_at = joined_at


class Machine(RuleBasedStateMachine):
    """Acts as the judge: flights of one micro-batch each, in any order, and partitions that are revoked."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.epochs = dict.fromkeys(PARTITIONS, 1)
        self.single_flight: SingleFlight[int] = SingleFlight(self.is_current)
        self.waiters: dict[Source, Waiter] = {}
        self.flights: list[list[Work[int]]] = []
        self.first_tried_at: dict[int, float] = {}
        self.at_engine: dict[int, list[Work[int]]] = {}

    def is_current(self, source: Source) -> bool:
        return self.epochs[source.origin] == source.epoch

    @rule(batch=st.lists(keys, min_size=1, max_size=4), retry_s=retry_times, at=partitions)
    def join(self, batch: list[bytes], retry_s: float, at: int) -> None:
        number, own = len(self.flights), []
        for key in batch:
            source = Source(PARTITIONS[at], self.epochs[PARTITIONS[at]], len(self.waiters))
            open_now = {id(work) for flight in self.flights for work in flight if not work.is_settled}
            work = self.single_flight.join(key, body_of(key), source, retry_s, number, self.now)
            assert not work.is_settled, "nobody joins what was answered"
            assert not work.is_spent(self.now), "nobody joins spent work"
            assert work.body["text"] == key.decode()
            if id(work) not in open_now and work not in own:
                assert work.flight == number
                own.append(work)
            self.waiters[source] = Waiter(work, key, retry_s, self.now)
        self.flights.append(own)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0, 10.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(at=partitions)
    def revoke(self, at: int) -> None:
        self.epochs[PARTITIONS[at]] += 1

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        flight = data.draw(st.sampled_from(self.waiting()))
        before = [work for work in self.flights[flight] if not work.is_settled]
        works = self.single_flight.begin(self.flights[flight], self.now)
        for work in before:
            has_waiters = any(map(self.is_current, work.waiters))
            assert (work in works) == has_waiters, "judged is what somebody waits for"
            assert work.is_settled != has_waiters, "all else is given up"
        for work in works:
            first = self.first_tried_at.setdefault(id(work), self.now)
            latest = max(first + work.retry_s, work.joined_at + work.retry_s / 2)
            assert first + work.retry_s <= work.deadline <= latest, "the timeout begins with the first attempt"
        if works:
            self.at_engine[flight] = works

    @precondition(lambda self: self.at_engine)
    @rule(data=st.data())
    def succeed(self, data: st.DataObject) -> None:
        for work in self._came_back(data):
            self.single_flight.settle(work, {"of": work.body["text"]})

    @precondition(lambda self: self.at_engine)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        works = self._came_back(data)
        self.single_flight.fail(works, self.now)
        if self.now >= deadline_of(works):
            for work in works:
                self._lose(work)

    def waiting(self) -> list[int]:
        """The flights that are not at the engine and have works to judge."""
        return [
            number
            for number, works in enumerate(self.flights)
            if number not in self.at_engine and not all(work.is_settled for work in works)
        ]

    def _came_back(self, data: st.DataObject) -> list[Work[int]]:
        return self.at_engine.pop(data.draw(st.sampled_from(sorted(self.at_engine))))

    def _lose(self, work: Work[int]) -> None:
        for source in work.waiters:
            waiter = self.waiters[source]
            assert waiter.retry_s == work.retry_s, "a failure is that of the waiter's own time"
            assert self.now - waiter.joined_at >= waiter.retry_s / 2, "half of the time is left to each"
        self.single_flight.settle(work, None)

    @invariant()
    def each_waiter_belongs_to_one_work(self) -> None:
        works = [work for flight in self.flights for work in flight]
        seated = [source for work in works for source in work.waiters]
        assert sorted(source.offset for source in seated) == list(range(len(self.waiters)))
        assert all(source in waiter.work.waiters for source, waiter in self.waiters.items())

    @invariant()
    def equal_content_is_judged_once(self) -> None:
        open_works = [work for flight in self.flights for work in flight if not work.is_settled]
        to_join = [(work.key, work.retry_s) for work in open_works if not work.is_spent(self.now)]
        assert len(to_join) == len(set(to_join))

    @invariant()
    def every_answer_is_of_the_content_that_was_asked(self) -> None:
        for waiter in self.waiters.values():
            if waiter.work.assessment is not None:
                assert waiter.work.assessment["of"] == waiter.key.decode()

    def teardown(self) -> None:
        for works in self.at_engine.values():
            for work in works:
                self.single_flight.settle(work, {"of": work.body["text"]})
        for flight in self.flights:
            for work in self.single_flight.begin(flight, self.now):
                self.single_flight.settle(work, {"of": work.body["text"]})
        assert all(waiter.work.is_settled for waiter in self.waiters.values())
        assert len(self.single_flight) == 0
        for source, waiter in self.waiters.items():
            # Only a waiter whose partition was revoked or whose timeout is over may get None.
            is_patient = math.isfinite(waiter.work.deadline) and waiter.work.has_failed
            assert waiter.work.assessment is not None or is_patient or not self.is_current(source)


def test_each_waiter_gets_one_answer_in_any_order_of_events() -> None:
    run_state_machine_as_test(Machine, settings=settings(max_examples=100, stateful_step_count=30))
