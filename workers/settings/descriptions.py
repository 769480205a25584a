"""What each setting means: the docstring under its field.

Only for people who read: a worker never imports this module, because it parses the source.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from workers.settings import Settings


class Described(NamedTuple):
    """A setting: its full name, its field and one line that says what it means."""

    name: str
    field: FieldInfo
    meaning: str


def described(section: type[BaseModel] = Settings) -> list[Described]:
    """Return every setting in the order of the sections, also those of a section within a section.

    `section`: only its settings, by their names within it.

    Raises:
        LookupError: a setting has no docstring.
    """
    return list(_leaves(section, ""))


def _leaves(section: type[BaseModel], prefix: str) -> Iterator[Described]:
    docstrings = _docstrings(section)
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _leaves(field.annotation, f"{prefix}{name}.")
        elif name in docstrings:
            yield Described(f"{prefix}{name}", field, docstrings[name])
        else:
            raise LookupError(f"{prefix}{name}: has no docstring under its field in {section.__module__}")


def _docstrings(section: type[BaseModel]) -> dict[str, str]:
    """Return the text under each field, as one line."""
    (written,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(written, ast.ClassDef)
    found: dict[str, str] = {}
    for field, below in zip(written.body, written.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found
