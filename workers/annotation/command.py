"""Runs an annotation for a person: the guard of the settings, a progress bar, and sentences."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from schemas.policy import Policy
from workers.annotation.annotate import Annotation, Summary
from workers.annotation.rows import PLAIN, Reading
from workers.errors import Fatal
from workers.guard.languages import load_languages
from workers.guard.load import NANO, NANO_JUDGES, load_guard
from workers.guard.retries import start_with_retries
from workers.policy.policy import CompiledPolicy
from workers.settings import Settings


def annotate(
    settings: Settings,
    source: Path,
    output: Path,
    policy: Policy | None,
    console: Console,
    reading: Reading = PLAIN,
) -> str:
    """Annotate a file and report the result. Give the guard's fingerprint, empty if there was nothing left to do.

    See `Annotation` for the guarantee and the errors.

    Raises:
        Fatal: also if no row could be judged.
    """
    annotation = Annotation(source, output, reading)
    if annotation.is_done:
        typer.echo(f"{output} is complete already", err=True)
        return ""
    if settings.guard.model == NANO:
        typer.echo(NANO_JUDGES, err=True)
    compiled = None if policy is None else CompiledPolicy(policy)
    try:
        summary, took_s, fingerprint = asyncio.run(_run(settings, annotation, compiled, console))
    except (KeyboardInterrupt, asyncio.CancelledError) as stop:
        typer.echo(
            f"stopped; {annotation.partial} holds the results so far: run the same command to continue", err=True
        )
        number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
        raise SystemExit(128 + number) from None
    rows, judged = summary.rows, summary.judged
    typer.echo(f"{output}: {rows} rows, {judged} judged now ({judged / took_s:.0f}/s)", err=True)
    if summary.bad:
        typer.echo(f"{annotation.bad}: {summary.bad} rows that cannot be judged, and why", err=True)
    if rows and summary.bad == rows:
        raise Fatal(f"{source}: no row could be judged; {annotation.bad} says why")
    return fingerprint


async def _run(
    settings: Settings, annotation: Annotation, policy: CompiledPolicy | None, console: Console
) -> tuple[Summary, float, str]:
    # SIGTERM ends the run in order, as Ctrl-C does: a machine that shuts down sends it first, and no row is at fault.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    guard = load_guard(settings.guard)
    await start_with_retries(guard.start, settings.worker.start_within_s)
    languages = None if policy is None else load_languages(settings.language)
    if languages is not None:
        await languages.start()
    bar = Progress(
        TextColumn("{task.fields[rows]} rows"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]:.0f} rows/s, left:"),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        disable=not console.is_terminal,
    )
    started = time.monotonic()
    first: int | None = None
    try:
        with bar:
            shown = bar.add_task("rows", total=annotation.source.size, rows=0, rate=0)

            def progress(rows: int, position: int) -> None:
                nonlocal first
                first = rows if first is None else first
                rate = (rows - first) / max(1e-3, time.monotonic() - started)
                bar.update(shown, completed=position, rows=rows, rate=rate)

            retry_s = settings.worker.unavailable_after_s
            summary = await annotation.run(guard, settings.batch, retry_s, policy, progress, languages)
    finally:
        await guard.close()
    return summary, time.monotonic() - started, guard.fingerprint
