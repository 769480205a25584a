"""YAML as people write it: what is wrong is one sentence with the place."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.errors import Misconfigured
from workers.settings.yaml_text import parse


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("kafka:\n  group: a: b\n", "f.yaml, line 2, column 11: mapping values are not allowed here"),
        ("a:\n\tb: 1", r"line 2, column 1: .*; YAML is indented with spaces"),
        ("a:\n  b: 1\n c: 2\n", "line 3, column 2: is indented otherwise than the lines before it"),
        ("a: 'x\n", r"line 2, column 1: found unexpected end of stream \(while scanning .* that begins in line 1\)"),
        ("a: 1\nb: [1\n", r"line 3, column 1: expected ',' or ']', but got the end of the text"),
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1: 'a' stands there twice"),
        ("[a]: 1\n", "line 1, column 1: a name cannot be a list or map"),
        ("é: 1\nb: \x07", r"line 2, column 4: the character '\\x07' cannot stand in YAML"),
        ("a: 2024-13-45\n", "f.yaml: cannot be read as YAML: month must be in 1..12.*; put a text into quotes"),
        ("a: !!bool x\n", "f.yaml: cannot be read as YAML: 'x'; put a text into quotes"),
        ("a: !!timestamp x\n", "f.yaml: cannot be read as YAML: .*; put a text into quotes"),
        ("a: " + "[" * 3000, "nested too deeply"),
        ("a: !!python/object:os.system x", "line 1, column 4: could not determine a constructor"),
    ],
)
def test_a_wrong_text_is_one_sentence_with_the_place(text: str, sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence) as refused:
        parse(text, "f.yaml")
    assert "\n" not in str(refused.value)


def test_a_mapping_may_be_merged_into_another() -> None:
    assert parse("a: &a {b: 1}\nc: {<<: *a, d: 2}\n", "f.yaml") == {"a": {"b": 1}, "c": {"b": 1, "d": 2}}


@given(st.text(alphabet=st.sampled_from("ab1:-[]{}'\"\n\t &*!|>%@,#?<~._\x00")))
def test_any_text_is_a_document_or_a_sentence(text: str) -> None:
    with suppress(Misconfigured):
        parse(text, "f.yaml")
