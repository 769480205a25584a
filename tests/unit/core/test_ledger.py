"""The ledger alone: contiguous prefixes, epochs, and what is held in memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from workers.core.ledger import Ledger
from workers.core.records import Finished, Output, Source, TopicPartition
from workers.errors import Fatal

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


def done(source: Source | None) -> Finished:
    assert source is not None
    return Finished(source, (Output("out", b"k", str(source.offset).encode()),))


def test_only_the_contiguous_prefix_is_taken() -> None:
    ledger = Ledger()
    ledger.assign([A])
    sources = [ledger.register(A, offset) for offset in (3, 4, 9)]
    ledger.complete([done(sources[2]), done(sources[1])], now=0)
    assert len(ledger.take()) == 0
    ledger.complete([done(sources[0])], now=0)
    assert ledger.take().positions() == {A: 10}


@given(st.permutations(range(12)), st.integers(1, 5))
def test_any_order_of_completion_gives_the_order_of_offsets(order: list[int], step: int) -> None:
    ledger = Ledger()
    ledger.assign([A])
    sources = [ledger.register(A, offset) for offset in range(12)]
    taken: list[int] = []
    for start in range(0, 12, step):
        ledger.complete([done(sources[i]) for i in order[start : start + step]], now=0)
        prefix = ledger.take()
        taken += [record.source.offset for record in prefix.records()]
        ledger.settle(prefix, now=0)
    assert taken == list(range(12))
    assert ledger.uncommitted == 0


def test_a_stale_epoch_never_moves_the_offset() -> None:
    ledger = Ledger()
    ledger.assign([A])
    old = ledger.register(A, 0)
    ledger.revoke([A])
    ledger.assign([A])
    ledger.register(A, 0)
    assert ledger.complete([done(old)], now=0) == 1
    assert len(ledger.take()) == 0


def test_a_prefix_taken_before_a_revoke_settles_nothing_after_it() -> None:
    ledger = Ledger()
    ledger.assign([A])
    ledger.complete([done(ledger.register(A, 0))], now=0)
    prefix = ledger.take()
    ledger.assign([A])
    ledger.complete([done(ledger.register(A, 0))], now=0)
    ledger.settle(prefix, now=0)
    assert len(ledger.take()) == 1


def test_a_record_of_a_partition_that_is_not_assigned_is_not_registered() -> None:
    ledger = Ledger()
    ledger.assign([A])
    assert ledger.register(B, 0) is None


@pytest.mark.parametrize("offset", [5, 4, 0])
def test_a_log_that_goes_back_is_never_passed_over(offset: int) -> None:
    ledger = Ledger()
    ledger.assign([A])
    ledger.register(A, 5)
    with pytest.raises(Fatal, match=f"t/0 went back from offset 5 to {offset}"):
        ledger.register(A, offset)


def test_only_a_partition_whose_finished_records_wait_is_stuck() -> None:
    ledger = Ledger()
    ledger.assign([A, B])
    slow, *others = [ledger.register(A, offset) for offset in range(5)]
    ledger.complete([done(source) for source in others], now=0)
    ledger.complete([done(ledger.register(B, offset)) for offset in range(9)], now=0)
    assert ledger.unfinished == 1
    assert ledger.stuck(3) == [A]
    assert ledger.stuck(4) == []
    ledger.complete([done(slow)], now=0)
    assert ledger.stuck(0) == []
    assert ledger.unfinished == 0


def test_a_record_completed_twice_counts_once() -> None:
    ledger = Ledger()
    ledger.assign([A])
    first, second = ledger.register(A, 0), ledger.register(A, 1)
    ledger.complete([done(first)], now=0)
    assert ledger.complete([done(first)], now=0) == 1
    ledger.complete([done(second)], now=0)
    assert [record.source.offset for record in ledger.take().records()] == [0, 1]


def test_a_commit_is_due_by_count_or_by_age() -> None:
    ledger = Ledger()
    ledger.assign([A])
    assert not ledger.is_due(100, count=1, age_s=0)
    ledger.complete([done(ledger.register(A, 0))], now=10)
    assert not ledger.is_due(10.5, count=2, age_s=1)
    assert ledger.is_due(11, count=2, age_s=1)
    assert ledger.is_due(10, count=1, age_s=1)


def test_a_limit_cuts_the_prefix_and_the_rest_stays() -> None:
    ledger = Ledger()
    ledger.assign([A, B])
    for origin in (A, B):
        ledger.complete([done(ledger.register(origin, offset)) for offset in range(3)], now=0)
    prefix = ledger.take(limit=4)
    assert len(prefix) == 4
    ledger.settle(prefix, now=0)
    assert len(ledger.take()) == 2


class LedgerMachine(RuleBasedStateMachine):
    """Assign, receive, finish, commit and revoke in any order: what is settled is what came, once, in order."""

    @initialize()
    def start(self) -> None:
        self.ledger = Ledger()
        self.next_offset = {A: 0, B: 0}
        self.committed = {A: 0, B: 0}
        self.under_way: list[Source] = []

    @rule(origin=st.sampled_from([A, B]))
    def assign(self, origin: TopicPartition) -> None:
        self.ledger.assign([origin])
        self.next_offset[origin] = self.committed[origin]

    @rule(origin=st.sampled_from([A, B]))
    def revoke(self, origin: TopicPartition) -> None:
        self.ledger.revoke([origin])

    @rule(origin=st.sampled_from([A, B]), count=st.integers(1, 5))
    def receive(self, origin: TopicPartition, count: int) -> None:
        for _ in range(count):
            source = self.ledger.register(origin, self.next_offset[origin])
            if source is not None:
                self.next_offset[origin] += 1
                self.under_way.append(source)

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        if self.under_way:
            index = data.draw(st.integers(0, len(self.under_way) - 1))
            self.ledger.complete([done(self.under_way.pop(index))], now=0)

    @rule(limit=st.one_of(st.none(), st.integers(1, 4)))
    def commit(self, limit: int | None) -> None:
        prefix = self.ledger.take(limit=limit)
        for record in prefix.records():
            origin = record.source.origin
            assert record.source.offset == self.committed[origin]
            self.committed[origin] += 1
        self.ledger.settle(prefix, now=0)

    @invariant()
    def counts_what_is_held(self) -> None:
        if hasattr(self, "ledger"):
            held = sum(self.next_offset[origin] - self.committed[origin] for origin in self.ledger.assigned)
            assert self.ledger.uncommitted == held


TestLedgerMachine = LedgerMachine.TestCase
