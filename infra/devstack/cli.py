"""The commands `guardline devstack up`, `status` and `down`: JSON on standard output, sentences on standard error."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from infra.devstack import commands
from infra.devstack.stack import Addresses

app = typer.Typer(no_args_is_help=True, help="A local Kafka and Valkey, without Docker or Java.")

Data = Annotated[Path | None, typer.Option("--data", metavar="FOLDER", help="The stack's data folder.")]


@app.command()
def up(data: Data = None) -> None:
    """Start Kafka and Valkey in the background, and print their addresses as JSON: those of the last run, if free."""
    before = commands.ports_of_last_run(data)
    began = time.monotonic()
    typer.echo(f"starting Apache Kafka and Valkey; their data is in {commands.folder_of(data)}", err=True)
    addresses = commands.up(data)
    if before and before != commands.ports_of_last_run(data):
        typer.echo("the ports of the last run are in use: export the new addresses", err=True)
    seconds = time.monotonic() - began
    typer.echo(
        f"both answer after {seconds:.0f} s, and run until: guardline devstack down{commands.option(data)}", err=True
    )
    _print(addresses)


@app.command()
def status(data: Data = None) -> None:
    """Print the addresses of the running stack as JSON."""
    _print(commands.status(data))


@app.command()
def down(data: Data = None) -> None:
    """Stop the stack; its data stays."""
    commands.down(data)
    typer.echo("stopped", err=True)


def _print(addresses: Addresses) -> None:
    typer.echo(json.dumps(asdict(addresses)))
