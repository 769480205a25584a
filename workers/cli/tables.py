"""Tables on standard output: fitted to a terminal, and with whole lines where another program reads them."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.table import Column, Table

console = Console(stderr=True)
"""For progress, which is nothing that another program reads."""

WIDE = 10_000
"""Columns. A table is no wider than what is in it."""


def table_of(*names: str) -> Table:
    """Give an empty table. On a narrow terminal its cells are broken, never cut off."""
    return Table(*(Column(name, overflow="fold") for name in names))


def print_table(table: Table) -> None:
    """Print a table."""
    Console(width=None if sys.stdout.isatty() else WIDE).print(table)
