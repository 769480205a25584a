"""`guardline config`: the settings in force."""

from __future__ import annotations

from typing import Annotated

import typer

from workers import settings as settings_module
from workers.cli.tables import add_row, print_table, table_of
from workers.settings import table as settings_table

app = typer.Typer()


@app.command("config")
def config_command(
    meanings: Annotated[bool, typer.Option("--meanings", help="Also print what each setting means.")] = False,
) -> None:
    """Print the settings in force, secrets masked, and where each came from."""
    if meanings:
        from workers.settings.descriptions import described

        meaning_of = {setting.name: setting.meaning for setting in described()}
    table = table_of("setting", "value", "from", *(["meaning"] if meanings else []))
    for name, value, origin in settings_table.rows(settings_module.load()):
        add_row(table, name, value, origin, *([meaning_of[name]] if meanings else []))
    print_table(table)
