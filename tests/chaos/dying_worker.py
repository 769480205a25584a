"""A whole worker whose engine kills the process when a prompt contains the marker, as a crash in native code would."""

from __future__ import annotations

import asyncio
import math
import os
import signal
from collections.abc import Sequence

import uvloop

from tests.benchmarks.stand_ins import InstantEngine, UncheckedGuard
from workers.guard.load import checkpoint_folder
from workers.guard.tokens import Tokens
from workers.moderation.worker import Worker
from workers.process.logs import log_to_stderr
from workers.settings import load

MARKER = "xylophone quartz jinx"
THINKS_S = 0.05
"""Long enough that other micro-batches are at the engine at the moment of the crash."""


class DyingEngine(InstantEngine):
    """Answers at once, but the marker crashes it."""

    def __init__(self, marker: Sequence[int]) -> None:
        self._marker = _joined(marker)

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = math.inf
    ) -> list[list[float]]:
        """Crash, or prefer the first candidate."""
        await asyncio.sleep(THINKS_S)
        if any(self._marker in _joined(prompt) for prompt in prompts):
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().score(prompts, candidates)


def _joined(ids: Sequence[int]) -> str:
    return "".join(f"{index}," for index in ids)


async def main() -> None:
    """Run until a signal or a crash."""
    log_to_stderr()
    folder = checkpoint_folder("guard-nano")
    (marker,) = Tokens(folder).content([f" {MARKER}"])
    await Worker(load(), UncheckedGuard(DyingEngine(marker), folder, "dying")).run()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
