"""Engines that run no model, for what a benchmark wants to know of everything else. Neither says anything of a text."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from workers.guard.guard import Guard


class InstantEngine:
    """Answers every prompt at once, by the prompt's length, so that prompts differ."""

    identity = "none"
    answered = 0
    prompts_at_a_time = None

    async def start(self, shared_tokens: int = 0) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to free."""

    async def watch(self) -> None:
        """It dies with the process."""

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = math.inf
    ) -> list[list[float]]:
        """Prefer the first candidate."""
        rows = [[-0.1, *([-2.0 - number / 50] * (len(candidates) - 1))] for number in range(97)]
        return [rows[len(prompt) % 97] for prompt in prompts]

    async def complete(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, deadline: float = math.inf
    ) -> list[list[int]]:
        """Not needed for scoring."""
        raise NotImplementedError


class SimulatedGpu(InstantEngine):
    """Simulated GPU time: one batch at a time, each taking a fixed time and some more for every prompt.

    As with a GPU, the time passes elsewhere: no core of this machine is busy with it.
    """

    BATCH_S = 0.003
    PROMPT_S = 0.000_3
    """Of the order of a 0.6B model on a large GPU; what matters is that the worker is not the bottleneck by much."""

    def __init__(self) -> None:
        self._free_at = 0.0

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = math.inf
    ) -> list[list[float]]:
        """Answer when the GPU would be through with it."""
        loop = asyncio.get_running_loop()
        # A queue like a GPU's: the next batch starts when the last one ends, however late the event loop notices.
        self._free_at = max(loop.time(), self._free_at) + self.BATCH_S + self.PROMPT_S * len(prompts)
        await asyncio.sleep(self._free_at - loop.time())
        return await super().score(prompts, candidates)


class FixedPace(SimulatedGpu):
    """Judges `1 / PROMPT_S` prompts a second whatever else runs on the machine, so that workers add up on few cores."""

    BATCH_S = 0.0
    PROMPT_S = 0.01


class UncheckedGuard(Guard):
    """The guard around an engine that knows nothing of contents: the self-check would find that it is none."""

    async def start(self, shared_tokens: int = 0) -> None:
        """Start the engine."""
        await self._load()
