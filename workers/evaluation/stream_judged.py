"""Judges a file of answers that has no outputs yet, as the workers do: with sessions of the guard from the settings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from schemas.policy import StreamPolicy
from workers import settings as settings_module
from workers.errors import Misconfigured
from workers.evaluation.stream_samples import StreamGold, lines
from workers.guard.retries import start_with_retries
from workers.guard.tokens import Tokens
from workers.live.guard import LiveGuard
from workers.live.increments import Increments, Piece, slices
from workers.live.load import load_live_guard, stream_folder
from workers.live.vocabulary import Vocabulary
from workers.settings import Settings

AT_ONCE = 16
"""How many answers are judged at a time, if the guard has so many sessions."""
NEVER = StreamPolicy(cut_prompt=None, cut_unsafe=None, cut_controversial=None, mean_weight=None)
"""Every token is judged. What the policy would do with it is found out afterwards."""


def judge_streams(file: Path, folder: Path) -> tuple[Path, float | None, int]:
    """Write `folder`/judged.jsonl: each line of `file` with the probabilities at each token, `risk`.

    `gold.onset_chars` of a line becomes `gold.onset`, in tokens. Lines that cannot be judged are left out.

    Returns the new file, the checkpoint's recommended threshold, and the number of lines that are left out.

    Raises:
        Misconfigured: names the line that is wrong, before anything is judged.
    """
    for gold, fields, where in lines(file):
        _check(gold, fields, where)
    return asyncio.run(_judge(settings_module.load(), file, folder / "judged.jsonl"))


def _check(gold: StreamGold, fields: Mapping[str, Any], where: str) -> None:
    for name, is_needed in (("text", True), ("question", False)):
        value = fields.get(name)
        if not isinstance(value, str) and (is_needed or value is not None):
            raise Misconfigured(f"{where}: {name}: has to be a text")
    if gold.onset is not None:
        raise Misconfigured(f"{where}: gold.onset counts tokens of outputs; with a text, name gold.onset_chars")
    if gold.onset_chars is not None and gold.onset_chars >= len(fields["text"]):
        raise Misconfigured(f"{where}: gold.onset_chars is {gold.onset_chars}, but the text is shorter")


async def _judge(settings: Settings, file: Path, output: Path) -> tuple[Path, float | None, int]:
    guard = load_live_guard(settings.streams)
    vocabulary = Vocabulary(Tokens(stream_folder(settings.streams)).byte_pairs)
    await start_with_retries(guard.start, settings.worker.start_within_s)
    bad, rows = 0, lines(file)
    unfinished = output.with_suffix(".unfinished")
    try:
        with unfinished.open("wb") as opened:
            while batch := list(islice(rows, min(AT_ONCE, settings.streams.max_sessions))):
                asked = (_judged(guard, vocabulary, gold, fields) for gold, fields, _ in batch)
                for found in await asyncio.gather(*asked):
                    if found is None:
                        bad += 1
                    else:
                        opened.write(orjson.dumps(found) + b"\n")
    finally:
        await guard.close()
    unfinished.replace(output)
    return output, guard.threshold, bad


async def _judged(
    guard: LiveGuard, vocabulary: Vocabulary, gold: StreamGold, fields: Mapping[str, Any]
) -> dict[str, Any] | None:
    session = guard.open(NEVER)
    try:
        rulings = [await session.user(fields.get("question") or "")]
        rulings += [await session.delta(fields["text"]), await session.finish()]
    finally:
        await session.close()
    if any(ruling.is_unavailable for ruling in rulings):
        return None
    labels: dict[str, Any] = {"severity": gold.severity}
    if gold.onset_chars is not None:
        pieces = _pieces(vocabulary, fields["text"])
        labels |= {"onset_chars": gold.onset_chars, "onset": onset_of(pieces, gold.onset_chars)}
    return {**fields, "gold": labels, "risk": [row for ruling in rulings for row in ruling.risk]}


def onset_of(pieces: Sequence[Piece], onset_chars: int) -> int:
    """Return the position of the token that completes the first character of the harmful part."""
    return next(number for number, piece in enumerate(pieces) if piece.chars > onset_chars)


def _pieces(vocabulary: Vocabulary, text: str) -> list[Piece]:
    increments = Increments(vocabulary)
    return [piece for part in slices(text) for piece in increments.push(part)] + list(increments.end())
