"""`guardline topics`: the topics of the workers."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated

import typer

from workers import settings as settings_module
from workers.cli.tables import counted, say
from workers.errors import GuardlineError

if TYPE_CHECKING:
    from workers.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The topics of the workers.")


@app.command("create")
def topics_create(
    alter: Annotated[
        bool,
        typer.Option(
            "--alter",
            help="Also change existing topics: the retention and the size of the largest record (`max.message.bytes`) "
            "become those of new topics. A larger size stays.",
        ),
    ] = False,
) -> None:
    """Create all topics, with partitions and retention from the settings, and say how existing ones differ."""
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
    _compare(settings, present, alter=alter)
    for pattern in settings.topics.patterns:
        say(f"not created: {pattern} is a pattern of input topics; create the topics themselves", err=True)


def _compare(settings: Settings, present: Collection[str], *, alter: bool) -> None:
    """Say which properties differ, and with `alter` change them."""
    from workers.kafka import clients, topic_settings

    admin = clients.admin(settings.kafka)
    try:
        found = topic_settings.differences(admin, settings, present)
    except GuardlineError as error:
        if alter:
            raise
        say(f"existing topics were not compared with the settings: {error}", err=True)
        return
    if alter:
        topic_settings.alter(admin, found)
    for one in found:
        if alter:
            say(f"changed {one.topic}: {one.name} from {one.present} to {one.wanted}")
        else:
            say(f"differs: {one.topic} has {one.name} {one.present}, and not {one.wanted}: --alter changes it")
