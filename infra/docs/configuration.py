"""Writes the tables of docs/configuration.md from the settings.

It replaces only what stands between its two marks. A section without marks is added at the end of the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from workers.settings import Endpoint
from workers.settings.coop_sections import CoopItems
from workers.settings.descriptions import Described, described
from workers.settings.dsa_sections import Statements
from workers.settings.table import WORKED_OUT

BEGIN = "<!-- settings of {}: `make generated` writes this table from the docstrings in workers/settings -->"
END = "<!-- end of the table -->"

IN_ACTIONS: dict[str, type[BaseModel]] = {
    "an endpoint": Endpoint,
    "the format coop": CoopItems,
    "statements of reasons": Statements,
}
"""The tables of docs/actions.md."""


def rendered_actions(page: str) -> str:
    """Return docs/actions.md with its tables written again."""
    for name, section in IN_ACTIONS.items():
        begin = BEGIN.format(name)
        before, _, rest = page.partition(begin)
        after = rest.partition(END)[2]
        page = f"{before}{begin}\n{table(described(section))}{END}{after}"
    return page


def rendered(page: str) -> str:
    """Return the page with its tables written again."""
    for section, settings in groupby(described(), key=lambda one: one.name.partition(".")[0]):
        begin = BEGIN.format(section)
        if begin not in page:
            page += f"\n## {section}\n\n{begin}\n{END}\n"
        before, _, rest = page.partition(begin)
        after = rest.partition(END)[2]
        page = f"{before}{begin}\n{table(settings)}{END}{after}"
    return page


def table(settings: Iterable[Described]) -> str:
    """Return the settings as a table of Markdown."""
    rows = [f"| `{name}` | {_default(name, field)} | {_linked(meaning)} |\n" for name, field, meaning in settings]
    return f"| setting | default | meaning |\n|---|---|---|\n{''.join(rows)}"


def _default(name: str, field: FieldInfo) -> str:
    """Return the default as the settings file has it, or what the worker works out."""
    if name in WORKED_OUT:
        return WORKED_OUT[name]
    value = field.get_default(call_default_factory=True)
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None:
        return "none"
    if value is PydanticUndefined:
        return "required"
    if value in ("", [], {}):
        return "empty"
    if isinstance(value, list):
        return f"`[{', '.join(value)}]`"
    return f"`{value}`" if isinstance(value, str) else str(value).lower()


def _linked(meaning: str) -> str:
    """Return a docstring as a cell: the name of a page in docs/ becomes a link."""
    return re.sub(r"docs/([\w/-]+\.md)(#[\w-]+)?", r"[\1](\1\2)", meaning).replace("|", r"\|")
