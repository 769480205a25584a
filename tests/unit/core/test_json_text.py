"""JSON as senders write it, read without losing what can be read."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.core.json_text import MAX_DEPTH, MAX_DIGITS, parse
from workers.errors import Undecodable

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@given(documents)
def test_valid_json_is_read_unchanged(document: object) -> None:
    assert parse(json.dumps(document).encode()) == document


@settings(max_examples=10)
@given(documents, st.booleans())
def test_only_values_that_are_nested_too_deep_are_lost(document: object, is_first: bool) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    members = [f'"deep": {deep}', f'"kept": {json.dumps(document)}']
    value = "{" + ", ".join(members if is_first else members[::-1]) + "}"
    read = parse(value.encode())
    assert isinstance(read, dict)
    assert read["kept"] == document
    depth, inner = 0, read["deep"]
    while inner:
        (inner,) = inner
        depth += 1
    assert depth < MAX_DEPTH
    assert inner is None


@pytest.mark.parametrize(
    "value",
    [b'{"a": "' + b'\\"' * 200_000, b"[" * 200_000 + b'"' + b'\\"' * 200_000, b"[" * 200_000 + b'"\\', b"]" * 200_000],
)
def test_deeply_nested_text_that_is_not_json_is_refused_in_linear_time(value: bytes) -> None:
    with pytest.raises(Undecodable, match="not_json"):
        parse(value)


def test_integers_of_any_length_are_numbers() -> None:
    read = parse(b"[" + b"9" * MAX_DIGITS + b", " + b"9" * 100_000 + b", -" + b"9" * 100_000 + b"]")
    assert read == [int("9" * MAX_DIGITS), math.inf, -math.inf]
