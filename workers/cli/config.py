"""`guardline config`: the settings in force."""

from __future__ import annotations

import typer

from workers import settings as settings_module
from workers.cli.tables import add_row, print_table, table_of
from workers.settings import table as settings_table

app = typer.Typer()


@app.command("config")
def config_command() -> None:
    """Print the settings in force, secrets masked, and where each came from."""
    table = table_of("setting", "value", "from")
    for name, value, origin in settings_table.rows(settings_module.load()):
        add_row(table, name, value, origin)
    print_table(table)
