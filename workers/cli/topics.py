"""`guardline topics`: the topics of a worker."""

from __future__ import annotations

import typer

from workers import settings as settings_module
from workers.cli.tables import say

app = typer.Typer(no_args_is_help=True, help="The topics of a worker.")


@app.command("create")
def topics_create() -> None:
    """Create the input and output topics, with partitions and retention from the settings."""
    from workers.kafka.topics import create

    settings = settings_module.load()
    made, present = create(settings)
    for name in made:
        say(f"created {name}")
    for name in present:
        say(f"already there: {name}")
    for pattern in settings.topics.patterns:
        say(f"not created: {pattern} is a pattern of input topics; create the topics themselves", err=True)
