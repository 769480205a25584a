"""Judges a gold file that has no assessments yet. A killed run can continue."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import orjson
import typer
from rich.console import Console

from workers import settings as settings_module
from workers.annotation.command import annotate
from workers.evaluation.samples import check_gold, has_judgements
from workers.guard.load import load_guard
from workers.guard.retries import start_with_retries
from workers.settings import Settings


def judged(file: Path, folder: Path) -> tuple[Path, int]:
    """Return a file with assessments, and the number of lines that could not be judged.

    This is `file` itself if it has them. Otherwise it is `folder`/judged.jsonl. An existing one is used again if it was
    made from the same file by the same guard, as `folder`/judged.json says.

    Raises:
        Misconfigured: names the line without gold, before anything is judged.
    """
    if has_judgements(file):
        return file, 0
    check_gold(file)
    settings = settings_module.load()
    output, note = folder / "judged.jsonl", folder / "judged.json"
    with file.open("rb") as read:
        digest = hashlib.file_digest(read, "sha256").hexdigest()
    if output.exists() and note.exists() and note.read_bytes() == _note(digest, asyncio.run(_fingerprint(settings))):
        typer.echo(f"{output}: judged already, by the same guard", err=True)
    else:
        output.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
        note.write_bytes(_note(digest, annotate(settings, file, output, None, Console(stderr=True))))
    bad = output.with_name(output.name + ".bad.jsonl")
    return output, len(bad.read_bytes().splitlines()) if bad.exists() else 0


def _note(digest: str, fingerprint: str) -> bytes:
    return orjson.dumps({"sha256": digest, "judged_by": fingerprint})


async def _fingerprint(settings: Settings) -> str:
    guard = load_guard(settings.guard)
    await start_with_retries(guard.start, settings.worker.start_within_s)
    await guard.close()
    return guard.fingerprint
