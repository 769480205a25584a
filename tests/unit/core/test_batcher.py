"""Micro-batches alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.event import EventDict
from workers.core.batcher import Batcher
from workers.core.records import Event, Source, TopicPartition

BODY: EventDict = {"event_id": "e", "tenant_id": "acme", "surface": "chat", "text": "hello"}


def event(offset: int, tokens: int = 1) -> Event:
    return Event(Source(TopicPartition("t", 0), 1, offset), b"k", BODY, 0, tokens)


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
