"""Says what is wrong with a value in this project's words. The input is one error of pydantic."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_core import ErrorDetails

SENTENCES: Mapping[str, str] = {
    "bool_parsing": "has to be true or false",
    "bool_type": "has to be true or false",
    "dict_type": "has to be an object of names and values",
    "enum": "has to be {expected}",
    "finite_number": "has to be a finite number",
    "float_parsing": "has to be a number",
    "float_type": "has to be a number",
    "greater_than": "has to be above {gt:g}",
    "greater_than_equal": "has to be at least {ge:g}",
    "int_from_float": "has to be a whole number",
    "int_parsing": "has to be a whole number",
    "int_type": "has to be a whole number",
    "less_than": "has to be below {lt:g}",
    "less_than_equal": "has to be at most {le:g}",
    "list_type": "has to be a list",
    "literal_error": "has to be {expected}",
    "missing": "the field is required",
    "model_type": "has to be an object of names and values",
    "path_type": "has to be the path of a file",
    "string_pattern_mismatch": "has to be an RFC 3339 time with a zone, as in 2026-01-31T12:00:00Z",
    "string_too_long": "has more than {max_length} characters",
    "string_too_short": "is empty",
    "string_type": "has to be a text",
    "too_long": "has more than {max_length} items",
    "too_short": "is empty",
}
"""Each continues a sentence that begins with the name of the field. In settings, policies and other files that people
write, all minimum lengths are 1, and only times have a pattern."""


def in_words(error: ErrorDetails) -> str:
    """Return the end of a sentence whose subject is the field. It never repeats the value, which may be a secret."""
    sentence = SENTENCES.get(error["type"])
    if sentence is None:
        return error["msg"].removeprefix("Value error, ")
    return sentence.format(**error.get("ctx", {}))
