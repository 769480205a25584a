"""`guardline annotate`: judge a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workers import settings as settings_module
from workers.cli.policy import read_policy
from workers.cli.tables import console

app = typer.Typer()


@app.command("annotate")
def annotate_command(
    source: Annotated[Path, typer.Argument(metavar="IN", help="JSON lines, CSV (both also .gz) or Parquet.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="A new file of the same format.")],
    policy: Annotated[Path | None, typer.Option(help="A policy in YAML or JSON: its decision is added.")] = None,
) -> None:
    """Judge every row of a file. After a crash, the same command goes on where it was."""
    from workers.annotation.command import annotate

    document = None if policy is None else read_policy(policy.stem, policy)
    annotate(settings_module.load(), source, output, document, console)
