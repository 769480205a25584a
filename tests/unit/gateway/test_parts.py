"""The parts of an answer that pass from the model server to the client."""

from __future__ import annotations

import pytest

from workers.gateway.parts import usage_of


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "4", None, [4]])
def test_usage_has_numbers_alone(value: object) -> None:
    counts = {"prompt_tokens": 3, "wrong": value, "details": {"cached_tokens": 2, "wrong": value}}
    assert usage_of({"usage": counts}) == {"prompt_tokens": 3, "details": {"cached_tokens": 2}}


@pytest.mark.parametrize("name", ["held back text", "an\nerror", "x" * 300])
def test_usage_has_no_names_that_could_be_text(name: str) -> None:
    assert usage_of({"usage": {name: 3, "total_tokens": 9}}) == {"total_tokens": 9}
