"""Parses JSON that the strict parser refuses. Pure.

A value that is not needed must never make it fail.
"""

from __future__ import annotations

import json
import re

from workers.core.reasons import Reason
from workers.errors import Undecodable

MAX_DEPTH = 100
"""If a value is nested too deep for the parser, null replaces everything below this depth."""

MAX_DIGITS = 400
"""A longer integer becomes infinity: Python converts it in quadratic time, and not at all over 4,300 digits."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)


def parse(value: bytes) -> object:
    """Give the value that the text describes.

    Accepts a byte order mark, trailing NUL bytes, NaN and Infinity, integers of any length, and control characters
    within strings. Halves of surrogate pairs stay in the strings. Of equal keys, the last one counts.

    Raises:
        Undecodable: `not_utf8` or `not_json`. The detail never repeats the content.
    """
    try:
        # Half of a surrogate pair is not valid UTF-8, but some encoders write it.
        text = value.removeprefix(BYTE_ORDER_MARK).rstrip(b"\0").decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise Undecodable(Reason.NOT_UTF8, f"byte {error.start} is not UTF-8") from None
    try:
        return _loads(text)
    except json.JSONDecodeError as error:
        raise Undecodable(Reason.NOT_JSON, _sentence(value, error)) from None
    except RecursionError:
        pass
    try:
        return _loads(_shallow(text))
    except (json.JSONDecodeError, RecursionError):
        raise Undecodable(Reason.NOT_JSON, "the value is not JSON, and nested deeper than a parser goes") from None


def _loads(text: str) -> object:
    return json.loads(text, parse_int=_integer, strict=False)


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= MAX_DIGITS else float(digits)


def _shallow(text: str) -> str:
    """Replace by null each object or array that is nested deeper than `MAX_DEPTH`."""
    kept: list[str] = []
    depth = begins = 0
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == MAX_DEPTH + 1:
                kept += [text[begins : token.start()], "null"]
        elif token[0] in "]}":
            if depth == MAX_DEPTH + 1:
                begins = token.end()
            depth -= 1
    if depth <= MAX_DEPTH:
        kept.append(text[begins:])
    return "".join(kept)


def _sentence(value: bytes, error: json.JSONDecodeError) -> str:
    return f"{error.msg} (line {error.lineno}, column {error.colno})"
