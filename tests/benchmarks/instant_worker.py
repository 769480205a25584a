"""A whole worker whose engine answers at once: what is left is the worker's own cost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import uvloop

from workers.cli import log_to_stderr
from workers.guard.guard import Guard
from workers.guard.load import checkpoint_folder
from workers.moderation.worker import Worker
from workers.settings import load


class InstantEngine:
    """Answers every prompt at once, from the prompt's own ids, so that different prompts differ."""

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to free."""

    async def score(self, prompts: Sequence[Sequence[int]], candidates: Sequence[int]) -> list[list[float]]:
        """Prefer the first candidate."""
        others = len(candidates) - 1
        return [[-0.1, *([-2.0 - sum(prompt) % 97 / 50] * others)] for prompt in prompts]

    async def complete(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        """Not needed for scoring."""
        raise NotImplementedError


async def main() -> None:
    """Run until a signal."""
    log_to_stderr()
    settings = load()
    guard = Guard(InstantEngine(), checkpoint_folder("guard-nano"), "instant")
    await Worker(settings, guard).run()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
