"""Windows of long content: nothing falls between two of them, and of too many both ends are kept."""

from __future__ import annotations

from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.guard.windows import windows

lengths = st.integers(0, 400)
sizes = st.integers(1, 60).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size // 2)))


@given(lengths, sizes)
def test_as_few_windows_as_possible_cover_all_ids_and_share_the_overlap(
    length: int, size_and_overlap: tuple[int, int]
) -> None:
    size, overlap = size_and_overlap
    cut, left_out = windows(range(length), size, overlap, 1_000)
    assert left_out == 0
    assert sorted({id_ for window in cut for id_ in window}) == list(range(length))
    if length <= size:
        assert cut == [range(length)]
        return
    assert all(len(window) == size for window in cut)
    assert len(cut) == ceil((length - overlap) / (size - overlap))
    shared = [before[-1] + 1 - behind[0] for before, behind in pairwise(cut)]
    assert set(shared[:-1]) <= {overlap}
    assert shared[-1] >= overlap, "the last one is a whole window as well"


@given(lengths, sizes, st.integers(1, 9))
def test_of_too_many_windows_the_first_the_last_and_some_evenly_between_are_kept(
    length: int, size_and_overlap: tuple[int, int], limit: int
) -> None:
    size, overlap = size_and_overlap
    every, _ = windows(range(length), size, overlap, 1_000)
    kept, left_out = windows(range(length), size, overlap, limit)
    assert left_out == max(0, len(every) - limit)
    assert len(kept) == len(every) - left_out
    places = [every.index(window) for window in kept]
    assert places[0] == 0
    if limit > 1:
        assert places[-1] == len(every) - 1
        steps = [behind - before for before, behind in pairwise(places)]
        assert not steps or max(steps) - min(steps) <= 1


@pytest.mark.parametrize(("limit", "starts"), [(1, [0]), (2, [0, 80]), (3, [0, 40, 80]), (4, [0, 30, 50, 80])])
def test_the_windows_that_are_kept(limit: int, starts: list[int]) -> None:
    kept, left_out = windows(range(90), 10, 0, limit)
    assert ([window[0] for window in kept], left_out) == (starts, 9 - limit)
