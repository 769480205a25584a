"""Micro-batches alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import EventDict
from workers.core.batcher import BYTES_PER_TOKEN, Batcher, estimate_tokens
from workers.core.records import Event, Source, TopicPartition

BODY: EventDict = {"event_id": "e", "tenant_id": "acme", "surface": "chat", "text": "hello"}


def event(offset: int, tokens: int = 1) -> Event:
    return Event(Source(TopicPartition("t", 0), 1, offset), b"k", BODY, tokens)


@given(st.lists(st.lists(st.integers(1, 40), max_size=8), max_size=8), st.integers(1, 6), st.integers(1, 50))
def test_every_event_leaves_once_in_order_and_within_the_limits(
    arrivals: list[list[int]], max_count: int, max_tokens: int
) -> None:
    batcher = Batcher(max_count=max_count, max_tokens=max_tokens, max_age_s=1)
    offset, batches = 0, []
    for now, sizes in enumerate(arrivals):
        events = [event(offset + index, tokens) for index, tokens in enumerate(sizes)]
        offset += len(events)
        batches += batcher.add(events, float(now))
    batches.append(batcher.close())
    assert [item.source.offset for batch in batches for item in batch] == list(range(offset))
    for batch in batches:
        assert len(batch) <= max_count
        assert len(batch) <= 1 or sum(item.tokens for item in batch) <= max_tokens


def test_the_deadline_counts_from_the_oldest_event() -> None:
    batcher = Batcher(max_count=10, max_tokens=100, max_age_s=0.5)
    assert batcher.deadline() is None
    batcher.add([event(0)], 1.0)
    batcher.add([event(1)], 1.4)
    assert batcher.deadline() == 1.5
    batcher.close()
    assert batcher.deadline() is None


def test_a_batch_of_exactly_the_tokens_closes_at_once_and_the_next_has_as_much_room() -> None:
    batcher = Batcher(max_count=10, max_tokens=7, max_age_s=1)
    for start in (0, 2):
        assert [len(batch) for batch in batcher.add([event(start, 3), event(start + 1, 4)], 0)] == [2]
    assert len(batcher) == 0


def test_an_event_larger_than_a_batch_gets_its_own_batch() -> None:
    batcher = Batcher(max_count=10, max_tokens=7, max_age_s=1)
    closed = batcher.add([event(0, 1), event(1, 100), event(2, 1)], 0)
    assert [[item.source.offset for item in batch] for batch in closed] == [[0], [1]]
    assert len(batcher) == 1


def test_the_deadline_of_the_next_batch_counts_from_its_own_first_event() -> None:
    batcher = Batcher(max_count=2, max_tokens=100, max_age_s=0.5)
    batcher.add([event(offset) for offset in range(2)], 1.0)
    assert batcher.deadline() is None
    batcher.add([event(2)], 7.0)
    assert batcher.deadline() == 7.5


@pytest.mark.parametrize("tokens", [1, 2, 1_000])
def test_the_estimate_counts_whole_tokens_and_is_never_too_low(tokens: int) -> None:
    bytes_before = (tokens - 1) * BYTES_PER_TOKEN
    assert {estimate_tokens(bytes_before + more) for more in range(BYTES_PER_TOKEN)} == {tokens}
