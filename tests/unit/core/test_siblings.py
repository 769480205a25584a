from __future__ import annotations

from itertools import permutations

import pytest

from workers.core.records import Finished, Memory, Output, Source, TopicPartition
from workers.core.siblings import Siblings

SOURCE = Source(TopicPartition("chat", 0), 1, 7)


def finished(place: int) -> Finished:
    memory = Memory(b"event", b"content", f"id-{place}", None)
    return Finished(SOURCE, (Output("verdicts", b"k", str(place).encode()),), (memory,), [("a", b"b")])


@pytest.mark.parametrize("order", [*permutations(range(3))])
def test_a_record_is_finished_with_the_last_of_its_events_and_has_all_outputs_in_their_order(
    order: tuple[int, ...],
) -> None:
    siblings = Siblings(3)
    *first, last = [siblings.finish(place, finished(place)) for place in order]
    assert first == [None, None]
    assert last is not None
    assert [output.value for output in last.outputs] == [b"0", b"1", b"2"]
    assert [memory.verdict_id for memory in last.memories] == ["id-0", "id-1", "id-2"]
    assert (last.source, last.headers) == (SOURCE, [("a", b"b")])
