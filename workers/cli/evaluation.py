"""`guardline eval`. The commands import their modules when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from workers.cli.evaluation_streams import stream_command
from workers.cli.tables import add_row, say
from workers.errors import Misconfigured, to_install


class ScoreByDefault(TyperGroup):
    """Treats a call without a command's name as a call of `score`."""

    def parse_args(self, ctx: object, args: list[str]) -> list[str]:
        """See `click.Command.parse_args`."""
        if args and args[0] not in (*self.commands, "--help"):
            args = ["score", *args]
        return super().parse_args(ctx, args)  # type: ignore[arg-type]  # the context's type is Typer's own


app = typer.Typer(
    cls=ScoreByDefault,
    no_args_is_help=True,
    help="Measure the guard. `guardline eval FILE` is short for `guardline eval score FILE`.",
)
GOLD = typer.Argument(metavar="FILE", help="JSON lines with gold labels: see docs/evaluation.md.")


@app.command("score")
def score_command(
    file: Annotated[Path, GOLD],
    out: Annotated[Path | None, typer.Option(help="The folder of the report; by default FILE.report.")] = None,
    by: Annotated[list[str] | None, typer.Option(help="A field to group by; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option(min=100, help="Resamples for the intervals.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
) -> None:
    """Compare the guard's assessments with gold labels. A file without assessments is judged first."""
    from workers.evaluation.judged import judged
    from workers.evaluation.samples import samples
    from workers.evaluation.score import BY, score

    try:
        from workers.evaluation import report as reports
    except ModuleNotFoundError:
        raise Misconfigured(f"plots need matplotlib: {to_install('eval')}") from None
    _check_gold(file)
    folder = out or file.with_name(file.name + ".report")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(f"{folder}: {error.strerror}: name another folder with --out") from error
    path, not_judged = judged(file, folder)
    report = score(samples(path), by=by or BY, rounds=rounds, seed=seed)
    report["not_judged"] = not_judged
    reports.write(report, folder, f"{file.name}: strict and loose")
    Console().print(reports.table_of(report))
    say(f"{folder}: report.html, report.json and the plots", err=True)


app.command("stream")(stream_command)


@app.command("calibrate")
def calibrate_command(
    file: Annotated[Path, GOLD],
    out: Annotated[Path | None, typer.Option(help="By default calibration.json beside the checkpoint.")] = None,
) -> None:
    """Fit the guard's temperatures to gold labels, so that its probabilities match the observed frequencies."""
    import asyncio

    from workers import settings as settings_module
    from workers.annotation.json_lines import JsonLines
    from workers.evaluation import calibrate
    from workers.evaluation.samples import check_gold
    from workers.guard.load import NANO, NANO_JUDGES, checkpoint_folder, load_engine, make_guard
    from workers.guard.retries import start_with_retries

    _check_gold(file)
    check_gold(file)
    # Only probabilities have a temperature, in whichever mode the workers run.
    everything = settings_module.load()
    settings = everything.guard.model_copy(update={"mode": "score"})
    folder = checkpoint_folder(settings.model, engine=settings.engine)
    if settings.model == NANO:
        say(NANO_JUDGES, err=True)

    async def answers() -> dict[str, calibrate.Answers]:
        guard = make_guard(settings, calibrate.ListeningEngine(load_engine(settings, folder)), folder)
        await start_with_retries(guard.start, everything.worker.start_within_s)
        try:
            return await calibrate.answers_of(guard, JsonLines(file).rows(are_whole=True), at_once=64)
        finally:
            await guard.close()

    found = asyncio.run(answers())
    fits = {name: calibrate.fit(found[name]) if name in found else None for name in calibrate.ANSWERS}
    table = Table("answer", "temperature", "answers", "loss before", "loss after")
    for name, fit in fits.items():
        if fit is None:
            add_row(table, name, "1 (too few answers, or all the same)")
        else:
            add_row(
                table,
                name,
                f"{fit.temperature:.3f}",
                str(fit.answers),
                f"{fit.loss_before:.4f}",
                f"{fit.loss_after:.4f}",
            )
    Console().print(table)
    path = out or folder / "calibration.json"
    if not any(fits.values()):
        raise Misconfigured(f"{file}: no temperature can be fitted to it, so {path} is not written")
    calibrate.write(fits, path)
    say(f"{path}: restart the workers to use it", err=True)


@app.command("convert")
def convert_command(
    dataset: Annotated[str, typer.Argument(help="The name of the data set: see docs/evaluation.md.")],
    source: Annotated[Path, typer.Argument(metavar="IN", help="The published file.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="A new file for the gold lines.")],
) -> None:
    """Convert a local file of a public data set to gold lines."""
    from workers.evaluation.convert import convert
    from workers.evaluation.public_data import ADAPTERS

    adapter = ADAPTERS.get(dataset)
    if adapter is None:
        raise Misconfigured(f"unknown data set {dataset!r} (one of: {', '.join(ADAPTERS)})")
    _check(source)
    done = convert(adapter, source, output)
    say(f"{output}: {done.lines} lines of {done.rows} rows; {done.unused} rows have no usable label", err=True)


def _check_gold(file: Path) -> None:
    from workers.annotation.files import KINDS, suffix_of

    _check(file)
    kind = KINDS.get(suffix_of(file), "JSON lines")
    if kind != "JSON lines":
        raise Misconfigured(f"{file}: gold labels must be JSON lines, not {kind}: see docs/evaluation.md")


def _check(file: Path) -> None:
    if not file.is_file():
        raise Misconfigured(f"no such file: {file}")
