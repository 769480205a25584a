"""What `guard.window_tokens` finds and costs where harm stands among harmless texts: `make quality-windows DATA=FILE`.

Each harmful text is put into the middle of harmless ones of its language. The values are measured in turns, so that a
machine that gets slower does so for all of them.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence

from infra.nano.data import Row
from tests.quality.texts import arguments, held_out
from workers.guard.guard import Guard, Refused, Request
from workers.guard.load import load_guard
from workers.settings import Guard as GuardSettings

VALUES = (None, 256, 128, 64, 32)
WINDOWS = 64
"""Of each text, so that nothing is left out: what is compared is what all windows say together."""

AROUND = (0, 3, 10)
"""Harmless texts around a harmful one."""

BATCH = 32


def texts_of(rows: Sequence[Row], around: int) -> tuple[list[str], list[str]]:
    """Give texts with harm in the middle of `around` harmless ones, and as long ones without harm."""
    rng = random.Random(around)
    harmless: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["safety"] == "Safe":
            harmless[row["lang"]].append(row["text"])
    harmful, safe = [], []
    for row in rows:
        others = [rng.choice(harmless[row["lang"]]) for _ in range(around)] if harmless[row["lang"]] else []
        if row["safety"] != "Safe" and (others or not around):
            harmful.append("\n".join([*others[: around // 2], row["text"], *others[around // 2 :]]))
        elif row["safety"] == "Safe":
            safe.append("\n".join([row["text"], *others]))
    return harmful, safe


async def flagged(guard: Guard, texts: Sequence[str]) -> Sequence[tuple[bool, int]]:
    """Say of each text whether it is found not Safe, and in how many windows it was read."""
    answers = await guard.assess([Request(text) for text in texts])
    return [(answer["severity"] != "Safe", answer["windows"]) for answer in answers if not isinstance(answer, Refused)]


async def measure() -> None:
    """Print the table of docs/guard.md."""
    rows = held_out(arguments(__doc__))
    guards = {value: load_guard(GuardSettings(window_tokens=value, max_windows=WINDOWS, threads=1)) for value in VALUES}
    for guard in guards.values():
        await guard.start()
    print("| harmless texts around | `guard.window_tokens` | recall | false alarms", end=" ")
    print("| windows for each text | texts for each second |")
    print("|---|---|---|---|---|---|")
    for around in AROUND:
        spent: dict[int | None, float] = dict.fromkeys(VALUES, 0.0)
        found, false, windows = Counter[int | None](), Counter[int | None](), Counter[int | None]()
        harmful, safe = texts_of(rows, around)
        for texts, count in ((harmful, found), (safe, false)):
            for start in range(0, len(texts), BATCH):
                for value, guard in guards.items():
                    began = time.perf_counter()
                    answers = await flagged(guard, texts[start : start + BATCH])
                    spent[value] += time.perf_counter() - began
                    count[value] += sum(is_flagged for is_flagged, _ in answers)
                    windows[value] += sum(number for _, number in answers)
        for value in VALUES:
            every = len(harmful) + len(safe)
            rates = f"{found[value] / len(harmful):.3f} | {false[value] / len(safe):.3f}"
            costs = f"{windows[value] / every:.1f} | {every / spent[value]:.0f}"
            print(f"| {around} | {value or 'not set'} | {rates} | {costs} |")
    for guard in guards.values():
        await guard.close()


if __name__ == "__main__":
    asyncio.run(measure())
