"""The answer of a model to one request, in either mode, and the choice of the prompt that counts."""

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
    """The answers to the prompts of one request. `worst` is the index of the prompt that counts."""

    probabilities: list[list[float]]
    """The probabilities of Safe, Controversial and Unsafe for each prompt, with four decimals. Shape: (prompts, 3)."""
    worst: int
    severity: int
    """The severity of the prompt that counts, as an index of `SEVERITIES`."""
    categories: list[str]
    """The most likely first. Empty if the severity is Safe."""
    category_probabilities: dict[str, float]
    """The probabilities of the three most likely categories. Empty in `mode: generate`."""
    refusal: bool | None
    """None for a text that a user wrote."""
    tokens: int
    """The tokens of all its prompts, and those that the model wrote."""


def probabilities_of(rows: Sequence[list[float] | Refused], temperature: float = 1.0) -> list[list[float] | Refused]:
    """Turn the log-probabilities of each row into probabilities whose sum is 1. Shape: (prompts, candidates).

    The probabilities have four decimals, as in an assessment, so that the severity follows from the published numbers.
    A row with numbers that are not log-probabilities is refused.
    """
    numbers = [row for row in rows if not isinstance(row, Refused)]
    if not numbers:
        return [*rows]
    given = np.array(numbers, dtype=np.float64)
    top = given.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", over="ignore"):
        weights = np.exp((given - top) / temperature)
    total = weights.sum(axis=1, keepdims=True)
    # In this form, NaN fails too: every comparison with NaN is false.
    is_fine = (top > -9_000) & (top <= 0.01) & (total <= given.shape[1])
    probabilities: list[list[float] | Refused] = (weights / total).round(4).tolist()
    if not is_fine.all():
        for index in np.flatnonzero(~is_fine).tolist():
            detail = f"the engine returned numbers that are not log-probabilities: {numbers[index]}"
            probabilities[index] = Refused("no_number", detail)
    if len(numbers) == len(rows):
        return probabilities
    found = iter(probabilities)
    return [row if isinstance(row, Refused) else next(found) for row in rows]


def label_of(probabilities: Sequence[float]) -> int:
    """Return the index of the most likely severity. Of equal ones, the worse."""
    safe, controversial, unsafe = probabilities
    if unsafe >= controversial and unsafe >= safe:
        return 2
    return 1 if controversial >= safe else 0


def worst_of(probabilities: Sequence[Sequence[float]]) -> int:
    """Return the index of the prompt with the worst severity. Of equal ones, the one most likely to be worse."""
    if len(probabilities) == 1:
        return 0
    rows = enumerate(probabilities)
    return max(rows, key=lambda row: (label_of(row[1]), row[1][2], row[1][1]))[0]
