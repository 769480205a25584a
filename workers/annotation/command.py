"""Runs the work on a file for a person: the guard of the settings, a progress bar, and sentences."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from schemas.policy import Policy
from workers.annotation import file_work
from workers.annotation.annotate import Annotation
from workers.annotation.file_work import FileWork, Summary
from workers.annotation.rewarding import Rewarding
from workers.annotation.rows import PLAIN, Reading
from workers.errors import Fatal
from workers.guard.guard import Guard
from workers.guard.languages import load_languages
from workers.guard.load import NANO, NANO_JUDGES, load_guard
from workers.guard.retries import start_with_retries
from workers.policy.policy import CompiledPolicy
from workers.reward.equations import Equation
from workers.settings import Settings

Run = Callable[[Guard, file_work.Progress], Awaitable[Summary]]
"""Does the work with a guard that is started."""


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
    compiled = None if policy is None else CompiledPolicy(policy)

    async def run(guard: Guard, progress: file_work.Progress) -> Summary:
        languages = None if policy is None else load_languages(settings.language)
        if languages is not None:
            await languages.start()
        retry_s = settings.worker.unavailable_after_s
        return await annotation.run(guard, settings.batch, retry_s, compiled, progress, languages)

    return _work(settings, annotation, run, source, console)


def reward(
    settings: Settings, source: Path, output: Path, equation: Equation, score_field: str | None, console: Console
) -> None:
    """Reward the completions of a file and report the result.

    See `Rewarding` for the guarantee and the errors.

    Raises:
        Fatal: also if no row could be judged.
    """
    rewarding = Rewarding(source, output, equation, score_field)

    async def run(guard: Guard, progress: file_work.Progress) -> Summary:
        return await rewarding.run(guard, settings.batch, settings.worker.unavailable_after_s, progress)

    _work(settings, rewarding, run, source, console)


def _work(settings: Settings, work: FileWork[Any], run: Run, source: Path, console: Console) -> str:
    if work.is_done:
        typer.echo(f"{work.output} is complete already", err=True)
        return ""
    if settings.guard.model == NANO:
        typer.echo(NANO_JUDGES, err=True)
    try:
        summary, took_s, fingerprint = asyncio.run(_run(settings, work, run, console))
    except (KeyboardInterrupt, asyncio.CancelledError) as stop:
        typer.echo(f"stopped; {work.partial} holds the results so far: run the same command to continue", err=True)
        number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
        raise SystemExit(128 + number) from None
    rows, judged = summary.rows, summary.judged
    typer.echo(f"{work.output}: {rows} rows, {judged} judged now ({judged / took_s:.0f}/s)", err=True)
    if rows and summary.bad == rows:
        raise Fatal(f"{source}: no row could be judged; {work.bad_rows_in} says why")
    if summary.bad:
        typer.echo(f"{summary.bad} rows cannot be judged; {work.bad_rows_in} says why", err=True)
    return fingerprint


async def _run(settings: Settings, work: FileWork[Any], run: Run, console: Console) -> tuple[Summary, float, str]:
    # SIGTERM ends the run in order, as Ctrl-C does: a machine that shuts down sends it first, and no row is at fault.
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    guard = load_guard(settings.guard)
    await start_with_retries(guard.start, settings.worker.start_within_s)
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
            shown = bar.add_task("rows", total=work.source.size, rows=0, rate=0)

            def progress(rows: int, position: int) -> None:
                nonlocal first
                first = rows if first is None else first
                rate = (rows - first) / max(1e-3, time.monotonic() - started)
                bar.update(shown, completed=position, rows=rows, rate=rate)

            summary = await run(guard, progress)
    finally:
        await guard.close()
    return summary, time.monotonic() - started, guard.fingerprint
