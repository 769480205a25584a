"""Help in plain words. Typer names the types of Python, as in `--rate <float range>`, and a switch has a `<bool>`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

WORDS: Mapping[str, str] = {
    "Path": "FILE",
    "float": "NUMBER",
    "int": "NUMBER",
    "list[str]": "TEXT",
    "str": "TEXT",
}
"""Types of options, and what the help shows for a value of each. For all other types it shows the possible values."""


class _Argument(TyperArgument):
    def display_type_rich(self, ctx: Any) -> None:
        """Show no type: an argument has its name alone."""

    def get_usage_pieces(self, ctx: Any) -> list[str]:
        """Show a name in brackets if the argument may be left out."""
        return [self.display_name_raw if self.required else f"[{self.display_name_raw}]"]


def in_plain_words(command: TyperCommand | TyperGroup) -> None:
    """Change the help of a command, and of all commands below it."""
    for parameter in command.params:
        if isinstance(parameter, TyperArgument):
            parameter.__class__ = _Argument
            parameter.metavar = parameter.display_name_raw.upper()
        elif isinstance(parameter, TyperOption) and parameter.metavar is None:
            parameter.metavar = WORDS.get(parameter.bare_type())
    for inner in getattr(command, "commands", {}).values():
        in_plain_words(inner)
