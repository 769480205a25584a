"""Reads the YAML that people write: a name may stand once in a mapping, and what is wrong is one sentence.

Nothing is built from a document but plain values.
"""

from __future__ import annotations

from collections.abc import Hashable
from datetime import date
from typing import Any

import yaml
from pydantic_core import ErrorDetails

from workers.errors import Misconfigured


class _Loader(yaml.SafeLoader):
    """YAML without tags of its own, in which a name may stand once: else the last one would win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = self.construct_object(key, deep=True)
            if not isinstance(name, Hashable):
                raise yaml.constructor.ConstructorError(None, None, "a name cannot be a list or map", key.start_mark)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} stands there twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def parse(text: str, file: str) -> object:
    """Return the document in a text; `file` is what the sentence calls it.

    Raises:
        Misconfigured: it is not YAML. The sentence has the line and the column, both counted from 1.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as error:
        raise Misconfigured(f"{file}{_place(error.problem_mark)}: {_problem(error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        raise Misconfigured(
            f"{file}, line {line}, column {column}: the character {chr(error.character)!r} cannot stand in YAML"
        ) from None
    except (ValueError, LookupError, AttributeError) as error:
        # A plain word in the shape of a date is built as one, whether there is such a day or not; and what is tagged as
        # a date or a truth is looked up as one, whatever it is.
        raise Misconfigured(f"{file}: cannot be read as YAML: {error}; put a text into quotes") from None
    except RecursionError:
        raise Misconfigured(f"{file}: cannot be read as YAML: it is nested too deeply") from None


def kind_of(value: object) -> str:
    """Name what YAML made of a value, without the value."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "a truth value"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "a map"
    return "a date"


def quoting(item: ErrorDetails) -> str:
    """Return the end of a sentence about a value that was meant as a text, and that YAML reads as something else.

    Empty for all other errors of pydantic.
    """
    value = item["input"]
    if item["type"] not in ("string_type", "literal_error", "enum", "string_sub_type") or value is None:
        return ""
    if isinstance(value, bool):
        words = ("yes", "on", "true") if value else ("no", "off", "false")
        allowed = str(item.get("ctx", {}).get("expected", f"'{words[0]}'"))
        quoted = next((f': put the word into quotes, "{word}"' for word in words if f"'{word}'" in allowed), "")
        return f"; YAML reads {words[0]} and {words[1]} as a truth value{quoted}"
    if isinstance(value, int | float | date):
        return f"; YAML reads it as {kind_of(value)}: put it into quotes"
    return ""


def _place(mark: yaml.Mark | None) -> str:
    return "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"


def _problem(error: yaml.MarkedYAMLError) -> str:
    problem = (error.problem or "is no YAML").replace("'<stream end>'", "the end of the text")
    if problem.startswith("expected <block end>"):
        return "is indented otherwise than the lines before it"
    if "'\\t'" in problem:
        problem += "; YAML is indented with spaces"
    if error.context is None or error.context_mark is None:
        return problem
    return f"{problem} ({error.context} that begins in line {error.context_mark.line + 1})"
