"""What a model said of one request, however it was asked, and which of its prompts counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from schemas.taxonomy import Category, Severity
from workers.engines.engine import Refused

SEVERITIES = [severity.value for severity in Severity]
CATEGORIES = [category.value for category in Category]
NONE = "None"


class Opinion(Struct, gc=False):
    """What a model said of one request's prompts. `worst` is the index of the prompt that counts."""

    shares: list[list[float]]
    """For each prompt the shares of Safe, Controversial, Unsafe, to four decimals; shape (prompts, 3)."""
    worst: int
    severity: int
    """The severity of the prompt that counts, as an index of `SEVERITIES`."""
    categories: list[str]
    """Most likely first; empty where the severity is Safe."""
    category_shares: dict[str, float]
    """Of the three most likely categories; empty where the engine gave none."""
    refusal: bool | None
    """None for what a user wrote."""


def shares_of(rows: Sequence[list[float] | Refused], temperature: float = 1.0) -> list[list[float] | Refused]:
    """Turn log-probabilities into shares of one, row by row; shape (prompts, candidates), as what is given.

    They have the four decimals that assessments have: a severity follows from what is published, and nothing else. A
    row that cannot be log-probabilities is refused.
    """
    numbers = [row for row in rows if not isinstance(row, Refused)]
    if not numbers:
        return [*rows]
    given = np.array(numbers, dtype=np.float64)
    top = given.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", over="ignore"):
        weights = np.exp((given - top) / temperature)
    total = weights.sum(axis=1, keepdims=True)
    # Written so that NaN fails as well: no comparison with it holds.
    is_fine = (top > -9_000) & (top <= 0.01) & (total <= given.shape[1])
    shares: list[list[float] | Refused] = (weights / total).round(4).tolist()
    if not is_fine.all():
        for index in np.flatnonzero(~is_fine).tolist():
            shares[index] = Refused("no_number", f"the engine gave log-probabilities that are none: {numbers[index]}")
    if len(numbers) == len(rows):
        return shares
    found = iter(shares)
    return [row if isinstance(row, Refused) else next(found) for row in rows]


def label_of(shares: Sequence[float]) -> int:
    """Give the index of the most likely severity; of equals, the worse."""
    safe, controversial, unsafe = shares
    if unsafe >= controversial and unsafe >= safe:
        return 2
    return 1 if controversial >= safe else 0


def worst_of(shares: Sequence[Sequence[float]]) -> int:
    """Give the index of the prompt with the worst severity; of equals, the one that leans most to the worse."""
    if len(shares) == 1:
        return 0
    return max(range(len(shares)), key=lambda index: (label_of(shares[index]), shares[index][2], shares[index][1]))
