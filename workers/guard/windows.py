"""Long content in overlapping windows of tokens: the worst window counts, and nothing is cut off silently."""

from __future__ import annotations

from collections.abc import Sequence


def windows(ids: Sequence[int], size: int, overlap: int, limit: int) -> tuple[list[Sequence[int]], int]:
    """Cut ids into windows of at most `size`, each sharing `overlap` with the one before; return them and how many
    more than `limit` there would have been.

    Of too many, the first and the last are kept and the rest spread evenly: harm hides at the end as well.
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
