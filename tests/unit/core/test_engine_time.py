"""Calls that overlap share the engine's time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.core.engine_time import EngineTime, shares


def test_calls_that_overlap_share_the_time_and_idle_time_is_nobodys() -> None:
    time = EngineTime()
    first = time.begin(10.0)
    second = time.begin(12.0)
    assert time.end(first, 16.0) == 2 + 4 / 2
    assert time.end(second, 17.0) == 4 / 2 + 1
    third = time.begin(100.0)
    assert time.end(third, 100.5) == 0.5


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0.001, 10)), min_size=1, max_size=9))
def test_all_calls_together_are_charged_with_the_time_in_which_one_was_in_flight(
    calls: list[tuple[float, float]],
) -> None:
    moments = sorted(
        [(start, 1, number) for number, (start, _) in enumerate(calls)]
        + [(start + lasts, 0, number) for number, (start, lasts) in enumerate(calls)]
    )
    time, begun, charged, busy, in_flight, last = EngineTime(), {}, 0.0, 0.0, 0, 0.0
    for now, is_begin, number in moments:
        busy += (now - last) * (in_flight > 0)
        last = now
        if is_begin:
            begun[number] = time.begin(now)
            in_flight += 1
        else:
            charged += time.end(begun[number], now)
            in_flight -= 1
    assert charged == pytest.approx(busy)


@given(st.floats(0, 1e6), st.lists(st.integers(0, 10_000), min_size=1))
def test_the_contents_of_a_call_share_its_time_by_their_tokens(total: float, tokens: list[int]) -> None:
    divided = shares(total, tokens)
    assert len(divided) == len(tokens)
    assert sum(divided) == pytest.approx(total if any(tokens) else 0.0)
    assert all(share == 0 for share, count in zip(divided, tokens, strict=True) if count == 0)
