"""The ledger alone: contiguous prefixes, epochs, and the records in memory."""

from __future__ import annotations

from itertools import takewhile

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
def test_offsets_that_go_back_end_the_worker(offset: int) -> None:
    ledger = Ledger()
    ledger.assign([A])
    ledger.register(A, 5)
    with pytest.raises(Fatal) as caught:
        ledger.register(A, offset)
    assert str(caught.value) == (
        f"t/0 went back from offset 5 to {offset}: the topic was created again, or its log was truncated. "
        "The next start reads the records that it has now"
    )


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
    for source, stale in [(second, 0), (second, 1), (first, 0), (first, 1), (second, 1)]:
        assert ledger.complete([done(source)], now=0) == stale
    assert [record.source.offset for record in ledger.take().records()] == [0, 1]


def test_a_commit_is_due_by_count_or_by_age() -> None:
    ledger = Ledger()
    ledger.assign([A])
    assert not ledger.is_due(100, count=1, age_s=0)
    ledger.complete([done(ledger.register(A, 0))], now=10)
    assert not ledger.is_due(10.5, count=2, age_s=1)
    assert ledger.is_due(11, count=2, age_s=1)
    assert ledger.is_due(10, count=1, age_s=1)


def test_a_trickle_of_finished_records_does_not_delay_the_commit() -> None:
    ledger = Ledger()
    ledger.assign([A])
    for offset in range(3):
        ledger.complete([done(ledger.register(A, offset))], now=10 + offset)
    assert ledger.is_due(13, count=100, age_s=3)


def test_records_left_by_a_limit_wait_from_the_commit_on() -> None:
    ledger = Ledger()
    ledger.assign([A])
    ledger.complete([done(ledger.register(A, offset)) for offset in range(3)], now=10)
    ledger.settle(ledger.take(limit=2), now=20)
    assert not ledger.is_due(22, count=100, age_s=3)
    assert ledger.is_due(23, count=100, age_s=3)


def test_a_partition_lost_during_a_commit_does_not_affect_the_others() -> None:
    ledger = Ledger()
    ledger.assign([A, B])
    for origin in (A, B):
        ledger.complete([done(ledger.register(origin, 0))], now=0)
    prefix = ledger.take()
    assert list(prefix) == [A, B]
    ledger.revoke([A])
    ledger.settle(prefix, now=0)
    assert ledger.uncommitted == 0
    assert len(ledger.take()) == 0


def test_a_limit_that_one_partition_reaches_takes_no_record_of_the_next() -> None:
    ledger = Ledger()
    ledger.assign([A, B])
    for origin in (A, B):
        ledger.complete([done(ledger.register(origin, 0))], now=0)
    assert ledger.take(limit=1).positions() == {A: 1}


def test_a_limit_cuts_the_prefix_and_the_rest_stays() -> None:
    ledger = Ledger()
    ledger.assign([A, B])
    for origin in (A, B):
        ledger.complete([done(ledger.register(origin, offset)) for offset in range(3)], now=0)
    prefix = ledger.take(limit=4)
    assert len(prefix) == 4
    ledger.settle(prefix, now=0)
    assert len(ledger.take()) == 2


def test_epochs_count_the_assignments() -> None:
    ledger = Ledger()
    ledger.assign([A, B])
    ledger.assign([A])
    epochs = [source.epoch for origin in (A, B) if (source := ledger.register(origin, 0))]
    assert epochs == [3, 2]


def test_a_finished_record_may_be_replaced_until_it_is_settled() -> None:
    ledger = Ledger()
    ledger.assign([A, B])
    records = [done(ledger.register(A, offset)) for offset in (7, 8, 9)]
    ledger.complete(records, now=0)
    letter = Finished(records[1].source, (Output("dead", b"k", b"letter"),))
    ledger.replace(letter)
    assert list(ledger.take().records()) == [records[0], letter, records[2]]


@pytest.mark.parametrize("is_given_back", [True, False])
def test_a_record_of_an_ended_epoch_is_not_replaced(is_given_back: bool) -> None:
    ledger = Ledger()
    ledger.assign([A])
    old = done(ledger.register(A, 7))
    ledger.complete([old], now=0)
    ledger.revoke([A])
    if is_given_back:
        ledger.assign([A])
        present = done(ledger.register(A, 7))
        ledger.complete([present], now=0)
    ledger.replace(Finished(old.source, (Output("dead", b"k", b"letter"),)))
    assert list(ledger.take().records()) == ([present] if is_given_back else [])


def test_a_position_is_committed_only_for_an_idle_partition_and_only_once() -> None:
    ledger = Ledger()
    ledger.assign([A, B])
    assert set(ledger.idle) == {A, B}
    source = ledger.register(A, 4)
    positions = {A: 7, B: 3, TopicPartition("t", 2): 9}
    prefix = ledger.take(positions=positions)
    assert prefix
    assert len(prefix) == 0
    assert prefix.positions() == {B: 3}
    ledger.settle(prefix, now=0)
    assert not ledger.take(positions=positions)
    ledger.complete([done(source)], now=0)
    assert set(ledger.idle) == {B}
    prefix = ledger.take(positions=positions)
    assert prefix.positions() == {A: 5}
    ledger.settle(prefix, now=0)
    assert not ledger.take(positions={A: 5, B: 2})
    assert ledger.take(positions={A: 6, B: 4}).positions() == {A: 6, B: 4}


def test_a_position_taken_before_a_revoke_settles_nothing_after_it() -> None:
    ledger = Ledger()
    ledger.assign([A])
    prefix = ledger.take(positions={A: 7})
    ledger.assign([A])
    ledger.settle(prefix, now=0)
    assert ledger.take(positions={A: 7}).positions() == {A: 7}


def test_a_commit_of_positions_only_does_not_delay_finished_records() -> None:
    ledger = Ledger()
    ledger.assign([A, B])
    ledger.complete([done(ledger.register(A, 0))], now=0)
    prefix = ledger.take(0, {B: 1})
    assert prefix.positions() == {B: 1}
    ledger.settle(prefix, now=5)
    assert ledger.is_due(5, count=9, age_s=5)


class LedgerMachine(RuleBasedStateMachine):
    """Assign, receive, finish, commit and revoke in any order, beside a model that holds a flag for each offset.

    What is settled is what came, once and in order, and every count is what the model counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.now = 0.0
        self.committed = {A: 0, B: 0}
        self.is_finished: dict[TopicPartition, dict[int, bool]] = {}
        self.epochs: dict[TopicPartition, int] = {}
        self.sources: list[Source] = []
        self.ready_since: float | None = None

    def ready(self, origin: TopicPartition) -> list[int]:
        """Return the finished offsets of a partition without an unfinished one before them."""
        return [offset for offset, _ in takewhile(lambda held: held[1], self.is_finished[origin].items())]

    def all_ready(self) -> int:
        return sum(len(self.ready(origin)) for origin in self.is_finished)

    def see_whether_some_are_ready(self) -> None:
        if self.all_ready() == 0:
            self.ready_since = None
        elif self.ready_since is None:
            self.ready_since = self.now

    @initialize()
    def start(self) -> None:
        self.assign(A)
        self.assign(B)

    @rule(origin=st.sampled_from([A, B]))
    def assign(self, origin: TopicPartition) -> None:
        self.ledger.assign([origin])
        self.is_finished[origin] = {}
        self.epochs.pop(origin, None)
        self.see_whether_some_are_ready()

    @rule(origins=st.lists(st.sampled_from([A, B]), unique=True))
    def revoke(self, origins: list[TopicPartition]) -> None:
        self.ledger.revoke(origins)
        for origin in origins:
            self.is_finished.pop(origin, None)
        self.see_whether_some_are_ready()

    @rule(origin=st.sampled_from([A, B]), count=st.integers(1, 5))
    def receive(self, origin: TopicPartition, count: int) -> None:
        for _ in range(count):
            offset = self.committed[origin] + len(self.is_finished.get(origin, ()))
            source = self.ledger.register(origin, offset)
            assert (source is not None) == (origin in self.is_finished)
            if source is not None:
                assert (source.origin, source.offset) == (origin, offset)
                assert self.epochs.setdefault(origin, source.epoch) == source.epoch
                self.is_finished[origin][offset] = False
                self.sources.append(source)

    def is_awaited(self, source: Source) -> bool:
        return self.belongs_to_the_present(source) and self.is_finished[source.origin].get(source.offset) is False

    def belongs_to_the_present(self, source: Source) -> bool:
        return source.origin in self.is_finished and self.epochs.get(source.origin) == source.epoch

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """Finish records of any epoch, some of them finished or settled before."""
        if self.sources:
            self.complete(data.draw(st.lists(st.sampled_from(self.sources), max_size=6)))

    @rule(origin=st.sampled_from([A, B]), count=st.integers(1, 5))
    def finish_the_oldest(self, origin: TopicPartition, count: int) -> None:
        unfinished = [source for source in self.sources if source.origin == origin and self.is_awaited(source)]
        self.complete(unfinished[:count])

    def complete(self, finished: list[Source]) -> None:
        stale = 0
        for source in finished:
            if self.is_awaited(source):
                self.is_finished[source.origin][source.offset] = True
            else:
                stale += 1
        assert self.ledger.complete([done(source) for source in finished], self.now) == stale
        self.see_whether_some_are_ready()

    @rule(limit=st.none() | st.integers(1, 4), lost=st.none() | st.sampled_from([A, B]), is_given_back=st.booleans())
    def commit(self, limit: int | None, lost: TopicPartition | None, is_given_back: bool) -> None:
        """Commit; a partition may be lost during the commit."""
        prefix = self.ledger.take(limit=limit)
        assert len(prefix) == min(self.all_ready(), limit or self.all_ready())
        taken: dict[TopicPartition, list[int]] = {origin: [] for origin in prefix}
        for record in prefix.records():
            taken[record.source.origin].append(record.source.offset)
        for origin, offsets in taken.items():
            assert offsets
            assert offsets == self.ready(origin)[: len(offsets)]
        assert prefix.positions() == {origin: offsets[-1] + 1 for origin, offsets in taken.items()}
        if lost is not None:
            self.assign(lost) if is_given_back else self.revoke([lost])
        self.ledger.settle(prefix, self.now)
        for origin, offsets in taken.items():
            if origin != lost:
                self.committed[origin] = offsets[-1] + 1
                for offset in offsets:
                    del self.is_finished[origin][offset]
        self.ready_since = self.now if self.all_ready() else None

    @rule(seconds=st.integers(1, 9))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def counts_what_is_held(self) -> None:
        held = {origin: len(offsets) for origin, offsets in self.is_finished.items()}
        finished = {origin: sum(offsets.values()) for origin, offsets in self.is_finished.items()}
        assert set(self.ledger.assigned) == set(held)
        assert self.ledger.uncommitted == sum(held.values())
        assert self.ledger.unfinished == sum(held.values()) - sum(finished.values())
        for limit in range(4):
            behind = [origin for origin in held if finished[origin] - len(self.ready(origin)) > limit]
            assert set(self.ledger.stuck(limit)) == set(behind)

    @invariant()
    def only_the_present_epochs_are_current(self) -> None:
        for source in self.sources:
            assert self.ledger.is_current(source.origin, source.epoch) == self.belongs_to_the_present(source)

    @invariant()
    def a_commit_is_due_by_count_or_by_the_age_of_what_waits(self) -> None:
        ready = self.all_ready()
        for count in (ready, ready + 1):
            for age_s in (0, 3, 6):
                is_due = self.ready_since is not None and (count <= ready or self.now - self.ready_since >= age_s)
                assert self.ledger.is_due(self.now, count=count, age_s=age_s) == is_due


TestLedgerMachine = LedgerMachine.TestCase
