"""Records are due when the rates of the pieces have added up."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.load.schedule import Piece, due, rate_at, steady


def test_a_steady_rate_spreads_its_records_evenly() -> None:
    assert list(islice(due(steady(10, ramp_s=0, duration_s=None)), 3)) == pytest.approx([0.1, 0.2, 0.3])
    assert len(list(due(steady(10, ramp_s=0, duration_s=3)))) == 30


def test_a_ramp_sends_half_of_what_its_last_rate_would_send() -> None:
    times = list(due(steady(100, ramp_s=4, duration_s=6)))
    assert sum(at_s <= 4 for at_s in times) == 200
    assert len(times) == 400
    assert times[199] - times[198] == pytest.approx(0.01, rel=0.01)


def test_a_ramp_that_is_longer_than_the_load_stays_below_its_rate() -> None:
    pieces = steady(100, ramp_s=10, duration_s=5)
    assert pieces == [Piece(5, 0, 50)]
    assert rate_at(pieces, 2.5) == 25


def test_the_rate_changes_evenly_within_a_piece_and_is_0_after_the_last() -> None:
    pieces = [Piece(2, 0, 10), Piece(4, 30, 10)]
    assert [rate_at(pieces, at_s) for at_s in (0, 1, 2, 4, 6)] == [0, 5, 30, 20, 0]


@given(
    st.lists(
        st.builds(Piece, st.floats(0.1, 20), st.floats(0, 200), st.floats(0, 200)),
        min_size=1,
        max_size=4,
    )
)
def test_every_piece_sends_as_many_records_as_its_rates_add_up_to(pieces: list[Piece]) -> None:
    times = list(due(pieces))
    whole = sum(piece.seconds * (piece.from_per_s + piece.to_per_s) / 2 for piece in pieces)
    assert abs(len(times) - whole) <= 1
    assert all(before <= after for before, after in pairwise(times))
    assert all(0 <= at_s <= sum(piece.seconds for piece in pieces) + 1e-6 for at_s in times)
