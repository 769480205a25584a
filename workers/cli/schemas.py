"""`guardline schemas`: the schemas of the outputs at a Schema Registry."""

from __future__ import annotations

import typer

from workers import settings as settings_module
from workers.cli.tables import add_row, print_table, say, table_of
from workers.errors import Misconfigured

app = typer.Typer(no_args_is_help=True, help="The schemas of the outputs at a Schema Registry.")


@app.command("register")
def schemas_register() -> None:
    """Register the schemas of this version, for workers that may not (`registry.auto_register: false`).

    It needs a registry with the API of Confluent's Schema Registry, and its address in `registry.url`.
    """
    from workers.kafka.registry import register

    for found, was_there in register(settings_module.load()):
        state = "already registered" if was_there else "registered"
        say(f"{state}: {found.subject.name}, id {found.id}")


@app.command("check")
def schemas_check() -> None:
    """Compare the registry with the schemas of this version. The exit code is 2 if the registry would refuse one.

    With `registry.auto_register: false` it is also 2 if one is not registered.
    """
    from workers.kafka.registry import check

    settings = settings_module.load()
    found = list(check(settings))
    table = table_of("subject", "schema", "newest version", "schema of this version")
    for one in found:
        if one.version is not None:
            state = f"version {one.version}, id {one.id}"
        else:
            state = "not registered" if one.is_compatible else "not registered, and not compatible"
        add_row(table, one.subject.name, one.subject.contract, "none" if one.newest is None else str(one.newest), state)
    print_table(table)
    if refused := [one.subject.name for one in found if not one.is_compatible]:
        raise Misconfigured(
            f"registry: the schemas of {', '.join(refused)} are not compatible with those that are registered; set the "
            "compatibility of these subjects to FORWARD or NONE"
        )
    missing = [one.subject.name for one in found if one.version is None]
    if missing and not settings.registry.auto_register:
        raise Misconfigured(
            f"registry.auto_register is false, and {', '.join(missing)} do not have the schemas of this version: "
            "register them with `guardline schemas register`"
        )
