"""The texts that training left out, and the guard that judges them."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from infra.nano.data import Row, hold_out_rows, read
from workers.guard.guard import Guard, Refused, Request

BATCH = 256


def arguments(description: str | None) -> argparse.Namespace:
    """Read what every measurement takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data", type=Path, required=True, help="gzipped JSON lines with gold labels, as training reads"
    )
    parser.add_argument("--texts", type=int, default=2_500, help="how many of the texts that training left out")
    return parser.parse_args()


def held_out(options: argparse.Namespace) -> list[Row]:
    """Give texts of the validation split, the same ones each time."""
    _, rows = hold_out_rows(read(options.data))
    random.Random(0).shuffle(rows)
    return rows[: options.texts]


UNREADABLE: dict[str, Any] = {"severity": "unreadable", "categories": []}
"""What stands for a judgement that could not be had."""


async def assess(guard: Guard, texts: Sequence[str], what: str) -> list[dict[str, Any]]:
    """Judge texts in batches, with a progress bar."""
    found: list[dict[str, Any]] = []
    bar = Console(stderr=True)
    for start in track(range(0, len(texts), BATCH), description=what, console=bar, disable=not bar.is_terminal):
        requests = [Request(text) for text in texts[start : start + BATCH]]
        answers = await guard.assess(requests)
        found += [UNREADABLE if isinstance(answer, Refused) else answer for answer in answers]
    return found
