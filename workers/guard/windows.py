"""Cuts long content into overlapping windows of tokens, and counts the windows that it leaves out."""

from __future__ import annotations

from collections.abc import Sequence


def windows(ids: Sequence[int], size: int, overlap: int, limit: int) -> tuple[list[Sequence[int]], int]:
    """Cut ids into windows of at most `size` that overlap by `overlap`.

    Returns at most `limit` windows, and the number of windows left out.

    Of too many windows, the first, the last and some evenly between are kept: harm may also stand at the end.
    """
    if len(ids) <= size:
        return [ids], 0
    step = size - overlap
    starts = list(range(0, len(ids) - overlap, step))
    starts[-1] = len(ids) - size
    left_out = max(0, len(starts) - limit)
    if left_out:
        last = len(starts) - 1
        starts = [starts[round(index * last / max(1, limit - 1))] for index in range(limit)]
    return [ids[start : start + size] for start in starts], left_out
