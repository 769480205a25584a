"""The settings of the aggregates worker: contradictions are refused with a sentence."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from workers.settings import Aggregates


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"harm_rate": {"raise_at": 3, "clear_below": 3}}, r"clear_below \(3\) has to be below raise_at \(3\)"),
        ({"similar": {"authors": 4, "clear_below": 5}}, r"clear_below \(5\) must not be above authors \(4\)"),
        ({"thread": {"rate": 0.2, "clear_below": 0.3}}, r"clear_below \(0.3\) must not be above rate \(0.2\)"),
        ({"folder": ""}, "is empty: name a folder, or leave this setting out"),
        ({"similar": {"max_distance": 4}}, "less than or equal to 3"),
    ],
    ids=str,
)
def test_a_contradiction_is_refused(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Aggregates.model_validate(given)


def test_the_defaults_contradict_nothing() -> None:
    assert Aggregates().folder is None
