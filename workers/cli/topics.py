"""`guardline topics`: the topics of a worker."""

from __future__ import annotations

import typer

from workers import settings as settings_module
from workers.cli.tables import counted, say

app = typer.Typer(no_args_is_help=True, help="The topics of a worker.")


@app.command("create")
def topics_create() -> None:
    """Create the input and output topics, with partitions and retention from the settings."""
    from workers.kafka.topics import create

    settings = settings_module.load()
    made, present = create(settings)
    for name in made:
        say(f"created {name}")
    wanted = settings.topics.partitions
    for name, partitions in present.items():
        if partitions is None or partitions == wanted:
            say(f"already there: {name}")
        else:
            say(f"already there: {name}, with {counted(partitions, 'partition')} (topics.partitions is {wanted})")
    for pattern in settings.topics.patterns:
        say(f"not created: {pattern} is a pattern of input topics; create the topics themselves", err=True)
