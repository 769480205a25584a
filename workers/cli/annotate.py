"""`guardline annotate`: judge a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workers import settings as settings_module
from workers.cli.policy import read_policy
from workers.cli.tables import console
from workers.errors import Misconfigured

app = typer.Typer()


@app.command("annotate")
def annotate_command(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="JSON lines, a JSON array, CSV, TSV (all also .gz or .zst) or Parquet.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="A new file of the same format.")],
    policy: Annotated[Path | None, typer.Option(help="A policy in YAML or JSON: its decision is added.")] = None,
    text: Annotated[str | None, typer.Option(help="The column that holds the text, if it is not 'text'.")] = None,
    mapping: Annotated[Path | None, typer.Option(help="A mapping, for rows of any shape: see docs/mapping.md.")] = None,
) -> None:
    """Judge every row of a file. After a crash, run the same command again to continue."""
    from workers.annotation.command import annotate
    from workers.annotation.rows import PLAIN, by_column, by_mapping

    if text is not None and mapping is not None:
        raise Misconfigured("--text and --mapping: one of them; the mapping says where the text is")
    reading = PLAIN
    if text is not None:
        reading = by_column(text)
    elif mapping is not None:
        reading = by_mapping(mapping)
    document = None if policy is None else read_policy(policy.stem, policy)
    annotate(settings_module.load(), source, output, document, console, reading)
