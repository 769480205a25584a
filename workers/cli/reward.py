"""`guardline reward`: the rewards of a file of completions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from workers import settings as settings_module
from workers.cli.tables import console

app = typer.Typer()


@app.command("reward")
def reward_command(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="JSON lines with prompt and completion (also .gz, .zst).")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="A new file of JSON lines.")],
    mode: Annotated[
        Literal["guard", "hybrid"], typer.Option(help="The guard alone, or together with another model's score.")
    ] = "guard",
    score_field: Annotated[
        str | None, typer.Option(help="The field with the other model's score, for --mode hybrid.")
    ] = None,
    controversial: Annotated[
        Literal["unsafe", "safe"], typer.Option(help="What a Controversial completion counts as.")
    ] = "unsafe",
) -> None:
    """Give each completion of a file its reward. After a crash, run the same command again to continue."""
    from workers.annotation.command import reward
    from workers.reward.equations import Equation

    reward(settings_module.load(), source, output, Equation(mode, controversial), score_field, console)
