"""The `guardline` command. Errors are sentences: exit code 2 for a wrong configuration, 1 for a failure later."""

from __future__ import annotations

import errno
import sys
from importlib.metadata import entry_points, version
from typing import Annotated, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_group

from workers.cli import (
    action_calls,
    actions,
    annotate,
    config,
    dead_letters,
    evaluation,
    forget,
    gateway,
    load,
    mapping,
    model,
    policy,
    policy_streams,
    records,
    review,
    reward,
    schemas,
    strikes,
    topics,
    usage,
    worker,
)
from workers.cli.help import in_plain_words
from workers.cli.report import report
from workers.cli.tables import say
from workers.errors import GuardlineError, Misconfigured

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(topics.app, name="topics")
app.add_typer(worker.app, name="worker")
app.add_typer(gateway.app)
app.add_typer(records.app)
app.add_typer(load.app)
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(usage.app)
app.add_typer(actions.app, name="actions")
app.add_typer(review.app, name="review")
app.add_typer(forget.app)
app.add_typer(schemas.app, name="schemas")
app.add_typer(policy.app, name="policy")
app.add_typer(strikes.app, name="strikes")
app.add_typer(mapping.app, name="mapping")
actions.app.add_typer(action_calls.app)
policy.app.add_typer(policy_streams.app)
app.add_typer(annotate.app)
app.add_typer(reward.app)
app.add_typer(model.app, name="model")
app.add_typer(evaluation.app, name="eval")
app.add_typer(config.app)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        say(f"guardline {version('guardline')}")
        raise typer.Exit


@app.callback()
def every_command(
    is_version_asked: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Content moderation: messages in Kafka, and the answers of assistants while they are written."""


EXTENSIONS = "guardline.commands"
"""The group of entry points with further commands. The command line imports no room above it."""


def _add_extensions() -> None:
    for point in entry_points(group=EXTENSIONS):
        # The imports may take a second, and a worker does not need them.
        if sys.argv[1:2] in ([], ["--help"], [point.name]):
            try:
                app.add_typer(point.load(), name=point.name)
            except ImportError:
                # The command's extra is not installed. All other commands work.
                continue


def command_line() -> TyperGroup:
    """Return the command with all its commands."""
    command = get_group(app)
    in_plain_words(command)
    return command


def main() -> NoReturn:
    """Run the command."""
    _add_extensions()
    try:
        command_line()()
    except GuardlineError as error:
        sys.exit(report(error))
    except OSError as error:
        if error.filename is None or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        # The user named a file or folder without having access to it, for any command.
        sys.exit(report(Misconfigured(f"{error.filename}: {error.strerror}")))
    sys.exit(0)
