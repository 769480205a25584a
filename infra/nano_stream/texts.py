"""Gathers the texts that streams are made of: each with its labels, its language, and the part it belongs to.

A text that is measured is never trained on. Authored texts are divided by whole ideas, as for guard-nano; of the data,
the validation texts of `infra.nano.data` are divided in two.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from infra.nano.authored import Authored, Part
from infra.nano.authored import read as read_authored
from infra.nano.data import Row, hold_out_rows
from schemas.taxonomy import Category, Severity

ANSWERS = Path(__file__).parent / "answers.jsonl"
_LONGEST = 700
"""Characters of a text; the rest is left out."""
_LONGEST_HARMFUL = 350
_MANUAL_MODULES = ("argparse", "calendar", "csv", "datetime", "json", "random", "statistics", "string", "textwrap")
_ORDINARY = ("tatoeba", "clinc150", "banking77", "goemotions_clean", "self_instruct", "plexpt_zh")
"""Sources of the data whose harmless texts are not chosen to be near to harmful ones."""


class Kind(StrEnum):
    """Where a text is from, which decides how often it is drawn."""

    AUTHORED = "authored"
    RESPONSE = "response"
    ORDINARY = "ordinary"
    NEAR = "near"
    """A harmless text of the data that resembles harmful ones."""
    DATA = "data"
    MANUAL = "manual"
    """English explanations and code, from Python's own documentation and library."""


@dataclass(frozen=True)
class Text:
    """A text that an answer may contain."""

    text: str
    severity: Severity
    category: Category | None
    language: str
    kind: Kind
    question: str | None = None
    """For a response: what the user had asked."""


def texts(part: Part, rows: list[Row]) -> list[Text]:
    """Give all texts of a part. `rows` are those of the data file."""
    training, validation = hold_out_rows(rows)
    wanted = {
        Part.TRAINING: training,
        Part.DEVELOPMENT: [row for row in validation if _half(row) == 0],
        Part.HOLDOUT: [row for row in validation if _half(row) == 1],
    }[part]
    out = [_of_authored(each) for each in read_authored(part)]
    out += [_of_row(row) for row in wanted if row["text"].strip()]
    out += answers(part)
    if part is Part.TRAINING:
        out += [Text(passage, Severity.SAFE, None, "en", Kind.MANUAL) for passage in _manual()]
    return out


def answers(part: Part) -> list[Text]:
    """Read the authored answers of a part."""
    lines = [json.loads(line) for line in ANSWERS.read_text(encoding="utf-8").splitlines()]
    return [
        Text(
            line["text"],
            Severity(line["severity"]),
            Category(line["category"]) if line["category"] else None,
            line["language"],
            Kind.RESPONSE,
            line["question"],
        )
        for line in lines
        if line["part"] == part
    ]


def _of_authored(each: Authored) -> Text:
    kind = Kind.RESPONSE if each.is_response else Kind.AUTHORED
    question = each.turns[-2] if each.is_response else None
    return Text(each.text, each.severity, each.category, each.language, kind, question)


def _of_row(row: Row) -> Text:
    is_safe = row["safety"] == "Safe"
    kind = Kind.DATA if not is_safe else Kind.ORDINARY if row["source"] in _ORDINARY else Kind.NEAR
    category = Category(row["categories"][0]) if row["categories"] else None
    text = row["text"].strip()[: _LONGEST if is_safe else _LONGEST_HARMFUL]
    return Text(text, Severity(row["safety"]), category, row["lang"], kind)


def _half(row: Row) -> int:
    return hashlib.md5(row["text"].encode(), usedforsecurity=False).digest()[0] % 2


def _manual() -> Iterator[str]:
    """Give passages of Python's documentation, and pieces of code with their comments."""
    from pydoc_data.topics import topics

    for topic in topics.values():
        for passage in re.split(r"\n\s*\n(?=\S)", topic):
            plain = re.sub(r"[*_`]{1,2}", "", textwrap.dedent(passage)).strip()
            if len(plain) > 120:
                yield re.sub(r"\s+", " ", plain)[:_LONGEST]
    for name in _MANUAL_MODULES:
        source = inspect.getsource(__import__(name))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                code = textwrap.dedent(ast.get_source_segment(source, node) or "")
                if len(code) > 120:
                    yield "```python\n" + code[:_LONGEST] + "\n```"
