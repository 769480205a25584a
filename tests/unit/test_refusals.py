"""Every error that the settings and contracts can cause has words of this project."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from schemas.generate import CONTRACTS
from workers.refusals import SENTENCES, in_words
from workers.settings import Settings

VALUES: list[Any] = [None, "", "x" * 300, "x" * 100_000, -1, 0.5, 10**9, [], [1] * 99, {}, True]


def errors_of(model: Any, field: str, value: object) -> Iterator[Any]:
    try:
        TypeAdapter(model).validate_json(json.dumps({field: value}))
    except ValidationError as error:
        yield from (one for one in error.errors() if one["loc"][:1] == (field,))


@pytest.mark.parametrize(
    "model", [*CONTRACTS.values(), *(field.annotation for field in Settings.model_fields.values())], ids=str
)
def test_no_sentence_is_pydantics_own(model: Any) -> None:
    found = [error for field in model.model_fields for value in VALUES for error in errors_of(model, field, value)]
    assert {error["type"] for error in found} - {*SENTENCES, "value_error", "extra_forbidden"} == set()
    said = [in_words(error) for error in found if error["type"] in SENTENCES]
    assert said
    assert [one for one in said if "nput should" in one or "{" in one] == []
