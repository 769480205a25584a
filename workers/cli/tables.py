"""Writes lines and tables. All text of senders goes through this module on its way to a terminal."""

from __future__ import annotations

import sys

import orjson
import typer
import yaml
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from workers.shown import printable

console = Console(stderr=True)
"""For progress bars on standard error, which other programs do not read."""

WIDE = 10_000
"""The width in columns. A table is not wider than its content."""


def say(line: str, *, err: bool = False) -> None:
    """Write one line. No character in it can control a terminal or begin another line."""
    typer.echo(printable(line), err=err)


def counted(count: int, noun: str) -> str:
    """Return a number with its noun: `1 record`, `2 records`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def say_json(value: bytes) -> None:
    """Write a JSON document as `json_line` gives it.

    Raises:
        orjson.JSONDecodeError: it is not JSON.
    """
    say(json_line(value))


def json_line(value: bytes) -> str:
    """Give a JSON document as one line. Characters that are not printable become JSON escapes.

    Raises:
        orjson.JSONDecodeError: it is not JSON.
    """
    document = orjson.loads(value)
    line = value.decode()
    if not line.isprintable():
        line = "".join(char if char.isprintable() else _json_escape(char) for char in orjson.dumps(document).decode())
    return line


def say_yaml(document: object) -> None:
    """Write a document as YAML. Characters that are not printable become YAML escapes."""
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    if not text.replace("\n", "").isprintable():
        text = yaml.safe_dump(document, sort_keys=False)
    typer.echo(text, nl=False)


def table_of(*names: str) -> Table:
    """Return an empty table. On a narrow terminal its cells are wrapped, never cut off."""
    return Table(*(Column(name, overflow="fold") for name in names))


def add_row(table: Table, *cells: str) -> None:
    """Add a row. Brackets in a cell are not markup, and what is not printable is an escape."""
    table.add_row(*(Text(printable(cell)) for cell in cells))


def print_table(table: Table) -> None:
    """Print a table."""
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
