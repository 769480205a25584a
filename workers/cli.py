"""The `guardline` command. Errors are sentences: exit code 2 for a wrong set-up, 1 for a failure later."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import sys
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import structlog
import typer
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from schemas.taxonomy import Surface
from workers import settings as settings_module
from workers import settings_table
from workers.errors import GuardlineError, Misconfigured
from workers.evaluation.cli import app as eval_app
from workers.policy.cli import app as policy_app
from workers.policy.cli import read_policy
from workers.settings import Settings
from workers.tables import print_table, table_of

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
topics_app = typer.Typer(no_args_is_help=True, help="The topics of a worker.")
worker_app = typer.Typer(no_args_is_help=True, help="Run a worker.")
model_app = typer.Typer(no_args_is_help=True, help="Checkpoints.")
app.add_typer(topics_app, name="topics")
app.add_typer(worker_app, name="worker")
app.add_typer(policy_app, name="policy")
app.add_typer(model_app, name="model")
app.add_typer(eval_app, name="eval")
console = Console(stderr=True)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"guardline {version('guardline')}")
        raise typer.Exit


@app.callback()
def every_command(
    is_version_asked: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_print_version, is_eager=True, help="Print the version, and end."
        ),
    ] = False,
) -> None:
    """Content moderation for Kafka streams."""


@topics_app.command("create")
def topics_create() -> None:
    """Create the input and output topics, with partitions and retention from the settings."""
    from workers.topics import create

    made, present = create(settings_module.load())
    for name in made:
        typer.echo(f"created {name}")
    for name in present:
        typer.echo(f"already there: {name}")


@worker_app.command("moderation")
def worker_moderation(
    worker_id: Annotated[str | None, typer.Option("--id", help="worker.id: two workers must not share it.")] = None,
    http_port: Annotated[int | None, typer.Option(help="http.port; 0 for any free one.")] = None,
) -> None:
    """Run one moderation worker until a signal. The first signal drains, a second one ends at once."""
    settings = settings_module.load(
        **({"worker": {"id": worker_id}} if worker_id else {}),
        **({"http": {"port": http_port}} if http_port is not None else {}),
    )
    log_to_stderr()
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_work(settings))
        except GuardlineError as error:
            _leave(error)
        _leave(None)


def _leave(error: GuardlineError | None) -> NoReturn:
    """End a worker that has closed what it could. A normal exit waits for threads, and an engine may hang in one."""
    code = 0 if error is None else _report(error)
    sys.stdout.flush()
    os._exit(code)


async def _work(settings: Settings) -> None:
    from workers.health import served
    from workers.moderation.worker import Worker

    worker = Worker(settings)
    async with served(settings.http, is_alive=lambda: worker.is_alive, is_ready=lambda: worker.is_ready) as port:
        structlog.get_logger().info("serving /livez, /readyz, /metrics", port=port)
        await worker.run()


def log_to_stderr() -> None:
    """Write logs as JSON lines, or coloured where a person reads them."""
    is_terminal = sys.stderr.isatty()
    renderer: Any = structlog.dev.ConsoleRenderer() if is_terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


@app.command("produce")
def produce_command(
    file: Annotated[str, typer.Argument(help="JSON lines of events; - for standard input.")],
    tenant: Annotated[str | None, typer.Option(help="Take rows as events: the tenant of those without one.")] = None,
    surface: Annotated[Surface, typer.Option(help="With --tenant: the surface of rows without one.")] = Surface.CHAT,
) -> None:
    """Put events into the input topics, keyed by conversation, author or id."""
    from workers.produce import produce

    settings = settings_module.load()
    fill = None if tenant is None else {"tenant_id": tenant, "surface": surface.value}
    try:
        if file != "-" and not Path(file).is_file():
            raise Misconfigured(f"{file} is no file")
        with (
            nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb") as lines,
            Progress(console=console, disable=file == "-" or not console.is_terminal) as progress,
        ):
            task = progress.add_task("events", total=None if file == "-" else Path(file).stat().st_size)
            count, bad, first, is_stopped = produce(settings, lines, lambda step: progress.advance(task, step), fill)
    except OSError as error:
        raise Misconfigured(f"cannot read {file}: {error.strerror}") from error
    typer.echo(f"{'stopped; ' if is_stopped else ''}{count} records produced", err=True)
    if bad:
        typer.echo(f"{bad} of them are no events, and will be answered by dead letters; {first}", err=True)
    if is_stopped:
        raise typer.Exit(128 + signal.SIGINT)


@app.command("verdicts")
def verdicts_command(
    follow: Annotated[bool, typer.Option(help="Go on with new ones.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    from_beginning: Annotated[bool, typer.Option(help="Start with the oldest one.")] = False,
) -> None:
    """Print verdicts. Without --follow, those that are there (as with --from-beginning)."""
    from workers.verdicts import read

    settings = settings_module.load()
    if follow and not from_beginning:
        typer.echo("waiting for new verdicts; --from-beginning shows those that are there, too", err=True)
    records = read(
        settings.kafka, [settings.topics.verdicts], from_beginning=from_beginning or not follow, follow=follow
    )
    try:
        for message in records:
            if message is None:
                if _is_reader_gone():
                    return
                continue
            value = message.value() or b""
            try:
                verdict = orjson.loads(value)
                typer.echo(value.decode() if as_json else _line(verdict))
            except (orjson.JSONDecodeError, LookupError, TypeError):
                place = f"{message.topic()}/{message.partition()}/{message.offset()}"
                typer.echo(f"{place} is no verdict: something else writes to topics.verdicts", err=True)
    except KeyboardInterrupt:
        return


def _is_reader_gone() -> bool:
    """Whether nobody reads standard output any more, as behind `| head -1`: where nothing is written, nothing fails."""
    output = select.poll()
    try:
        output.register(sys.stdout, 0)  # 0: an error is told of without being asked for.
    except (OSError, ValueError):
        return False  # Standard output is none of the system's files.
    return any(event & select.POLLERR for _, event in output.poll(0))


@app.command("dead-letters")
def dead_letters_command() -> None:
    """Print the dead letters that are there: where each record was, its key, and what was wrong with it."""
    from workers.moderation.intake import headers_of
    from workers.verdicts import read

    settings = settings_module.load()
    for message in read(settings.kafka, [settings.topics.dead_letters], from_beginning=True, follow=False):
        if message is not None:
            # The last of a name is ours: the record's own headers come first.
            found = {name: (value or b"").decode("utf-8", "replace") for name, value in headers_of(message)}
            place = "/".join(found.get(f"source.{part}", "?") for part in ("topic", "partition", "offset"))
            about = f"{place}  {_shown(message.key())}"
            typer.echo(f"{found.get('reason', '?'):<16}  {about}  {found.get('detail', '')}")


def _shown(key: bytes | None) -> str:
    """Give a record's key for a line of a table: as text where it is some, and never as control characters."""
    if key is None:
        return "no key"
    text = key.decode("utf-8", "backslashreplace")
    return text if text.isprintable() and text else repr(text)


def _line(verdict: dict[str, Any]) -> str:
    assessment = verdict["assessment"]
    opinion = "no judgement" if assessment is None else " ".join([assessment["severity"], *assessment["categories"]])
    again = f"  (repeats {verdict['duplicate_of']})" if verdict["duplicate_of"] else ""
    about = f"{verdict['tenant_id']}  {verdict['surface']}  {verdict['event_id']}"
    return f"{verdict['decision']:<6}  {about}  {opinion}{again}"


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


@model_app.command("convert")
def model_convert(
    model: Annotated[str, typer.Argument(help="A Hugging Face checkpoint: its folder, or its name to download it.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="A new folder, for the engine 'ctranslate2'.")],
    quantization: Annotated[str, typer.Option(help="As CTranslate2 names it.")] = "int8_float32",
    texts: Annotated[
        Path | None, typer.Option(help="Texts to compare on, one a line; a few hundred come along.")
    ] = None,
) -> None:
    """Convert a checkpoint, and print how far the result agrees with it."""
    from workers.guard.convert import agreement, convert
    from workers.guard.load import checkpoint_folder

    source = checkpoint_folder(model, engine="transformers")
    lines = _texts(texts)
    convert(source, output, quantization)
    found = asyncio.run(agreement(source, output, lines, context_tokens=settings_module.load().guard.context_tokens))
    typer.echo(
        f"{output}: on {found.texts} texts the same severity for {found.same_severity:.1%} and the same categories for "
        f"{found.same_categories:.1%}; a score differs by at most {found.furthest_score:.3f}"
    )


def _texts(file: Path | None) -> list[str]:
    """Give the texts of a file, or those of the demo."""
    from importlib.resources import files

    try:
        if file is None:
            sample = files("infra.demo") / "sample.jsonl"
            return [str(orjson.loads(line)["text"]) for line in sample.read_text(encoding="utf-8").splitlines()]
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"cannot read {file}: {error}") from error
    if not lines:
        raise Misconfigured(f"{file} holds no text")
    return lines


@app.command("config")
def config_command() -> None:
    """Print the settings in force, secrets masked, and where each came from."""
    table = table_of("setting", "value", "from")
    for name, value, origin in settings_table.rows(settings_module.load()):
        table.add_row(name, Text(value), Text(origin))  # Brackets in it are no markup.
    print_table(table)


def _add_devstack() -> None:
    # Its imports take a second, and no worker needs them.
    if sys.argv[1:2] in ([], ["--help"], ["devstack"]):
        try:
            from infra.devstack.cli import app as devstack_app
        except ImportError:
            # The extra 'devstack' is not installed: everything else works.
            return
        app.add_typer(devstack_app, name="devstack", help="The embedded Kafka and Valkey.")


def main() -> NoReturn:
    """Run the command."""
    _add_devstack()
    try:
        app()
    except GuardlineError as error:
        sys.exit(_report(error))
    except OSError as error:
        if error.filename is None or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        # A file or folder that somebody named and may not use, whichever command it was for.
        sys.exit(_report(Misconfigured(f"{error.filename}: {error.strerror}")))
    sys.exit(0)


def _report(error: GuardlineError) -> int:
    """Write the sentence; give the exit code."""
    sys.stderr.write(f"guardline: {error}\n")
    sys.stderr.flush()
    return 2 if isinstance(error, Misconfigured) else 1
