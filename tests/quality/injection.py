"""What reaches the structure of a prompt, with and without the guard's encoding: `make quality-injection`."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from tests.checkpoints.checkpoint import Checkpoint, checkpoint
from tests.checkpoints.hostile import LOOKALIKES, cases
from tests.checkpoints.oracle import OWN, own_lines
from tests.checkpoints.qwen import ADDED, FIRST_NOT_SPECIAL, write_qwen
from workers.guard.load import checkpoint_folder
from workers.guard.prompt import Request
from workers.guard.views import Views


def kind_of(token: str) -> str:
    """Name the kind of a hostile text."""
    if token in LOOKALIKES:
        return "look-alikes"
    return "special tokens" if token in ADDED[:FIRST_NOT_SPECIAL] else "added tokens that are not special"


def got_in(one: Checkpoint, own: Sequence[str], request: Request, ids: list[int]) -> bool:
    """Say whether a prompt has control ids, or lines of the template's, that the template did not put there."""
    before, after = one.around(request)
    if ids[: len(before)] != before or ids[-len(after) :] != after:
        return True
    inner = ids[len(before) : -len(after)]
    lines = own_lines(one.tokens.text(inner), own)
    return not one.tokens.control.isdisjoint(inner) or len(lines) > len(request.context)


def rows_of(name: str, one: Checkpoint, own: Sequence[str]) -> list[str]:
    """Count the prompts that something got into, by kind: by the template rendered as a whole, and by the guard."""
    views = Views()
    tried, whole, guarded = Counter[str](), Counter[str](), Counter[str]()
    for token, _, request in cases(one.added()):
        view = views.normalized(request.text)
        for reading in [request] if view is None else [request, replace(request, text=view)]:
            tried[kind_of(token)] += 1
            whole[kind_of(token)] += got_in(one, own, reading, one.whole(reading))
            guarded[kind_of(token)] += any(got_in(one, own, reading, ids) for ids in one.built([reading]))
    return [f"| {name} | {kind} | {count} | {whole[kind]} | {guarded[kind]} |" for kind, count in tried.items()]


def main() -> None:
    """Print the table of docs/guard.md."""
    print(
        "| tokenizer | hostile content | prompts | got in: template as a whole | got in: guard |\n|---|---|---|---|---|"
    )
    print("\n".join(rows_of("guard-nano", checkpoint(checkpoint_folder("guard-nano")), OWN["guard-nano"])))
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(rows_of("Qwen3", checkpoint(write_qwen(Path(folder))), OWN["qwen"])))


if __name__ == "__main__":
    main()
