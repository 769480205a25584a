"""Help and refusals in plain words. Typer shows the types of Python, as in `--rate <float range>`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer
from pydantic import ValidationError
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from workers.errors import Misconfigured
from workers.refusals import in_words

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


class _Option(TyperOption):
    def process_value(self, ctx: Any, value: Any) -> Any:
        """Say what is wrong with a value as the settings do.

        Raises:
            Misconfigured: the option cannot have this value.
        """
        try:
            return super().process_value(ctx, value)
        except typer.BadParameter as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            said = in_words(error.__cause__.errors()[0]).removesuffix(".")
            raise Misconfigured(f"{self.opts[0]}: {said}") from None


def in_plain_words(command: TyperCommand | TyperGroup) -> None:
    """Change the help of a command, and of all commands below it."""
    for parameter in command.params:
        if isinstance(parameter, TyperArgument):
            parameter.__class__ = _Argument
            parameter.metavar = parameter.display_name_raw.upper()
        elif isinstance(parameter, TyperOption):
            parameter.__class__ = _Option
            if parameter.metavar is None:
                parameter.metavar = WORDS.get(parameter.bare_type())
    for inner in getattr(command, "commands", {}).values():
        in_plain_words(inner)
