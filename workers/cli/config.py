"""`guardline config`: the settings in force."""

from __future__ import annotations

from typing import Annotated

import typer

from workers import settings as settings_module
from workers.cli.tables import add_row, print_table, table_of
from workers.settings import Settings
from workers.settings import table as settings_table

app = typer.Typer()


@app.command("config")
def config_command(
    meanings: Annotated[bool, typer.Option("--meanings", help="Also print what each setting means.")] = False,
) -> None:
    """Print the settings in force, secrets masked, and where each came from.

    Then check, without a connection, the mapping's file, the model's folder, the files of endpoints and review tokens,
    and whether Kafka's clients can be made. The check opens these files: run it where the workers have them.
    """
    settings = settings_module.load()
    if meanings:
        from workers.settings.descriptions import described

        meaning_of = {setting.name: setting.meaning for setting in described()}
    table = table_of("setting", "value", "from", *(["meaning"] if meanings else []))
    for name, value, origin in settings_table.rows(settings):
        add_row(table, name, value, origin, *([meaning_of[name]] if meanings else []))
    print_table(table)
    _check(settings)


def _check(settings: Settings) -> None:
    """Check what the worker reads at its start.

    Raises:
        Misconfigured: the mapping's file is wrong, the model's folder is missing or has no checkpoint, a file of an
            endpoint or of a review token cannot be used, or librdkafka refuses a property.
    """
    from workers.guard.load import local_folder
    from workers.kafka import clients
    from workers.kafka.route import of_moderation
    from workers.mapping.mapping import load as load_mapping
    from workers.review.people import Tokens

    if settings.events.mapping is not None:
        load_mapping(settings.events.mapping, "events.mapping")
    local_folder(settings.guard.model, engine=settings.guard.engine)
    if settings.actions.endpoints:
        from workers.actions.client import Client
        from workers.actions.secrets import Secrets

        for endpoint in settings.actions.endpoints:
            Secrets(endpoint)
            Client(endpoint, answer_bytes=0)
    Tokens(settings.review.tokens)
    # The making of a client fetches a first token.
    if settings.kafka.token_provider is None:
        clients.consumer(of_moderation(settings)).close()
        clients.transactional_producer(settings.kafka, settings.worker.id, {})
