"""CTranslate2: the embedded default, and int8 production on a CPU."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from workers.errors import BadInput, Misconfigured

MAX_BATCH_TOKENS = 4_096
"""Tokens of a step, padding included: past it the CPU's caches are too small and a step gets slower."""


class CTranslate2Engine:
    """One model folder, run in threads that release the GIL.

    `threads` are those of one computation (all cores by default); `parallel` calls run at a time.
    """

    def __init__(
        self, folder: Path, *, threads: int | None = None, parallel: int = 1, context_tokens: int = 2048
    ) -> None:
        self._folder = folder
        self._threads = threads or 0
        self._parallel = parallel
        self._context_tokens = context_tokens
        self._generator: Any = None
        self._tokens: list[str] = []
        self._pool: ThreadPoolExecutor | None = None

    async def start(self) -> None:
        """Load the model.

        Raises:
            Misconfigured: the folder holds no model that CTranslate2 can run.
        """
        if self._generator is None:
            await asyncio.to_thread(self._load)

    def _load(self) -> None:
        import ctranslate2  # It takes half a second, and only this engine needs it.

        if not (self._folder / "model.bin").is_file():
            raise Misconfigured(f"guard.model: {self._folder} holds no CTranslate2 model (model.bin is missing)")
        try:
            self._generator = ctranslate2.Generator(
                str(self._folder), device="cpu", inter_threads=self._parallel, intra_threads=self._threads
            )
            self._tokens = json.loads((self._folder / "vocabulary.json").read_text(encoding="utf-8"))
        except (RuntimeError, ValueError, OSError) as error:
            raise Misconfigured(f"guard.model: {self._folder} is broken: {error}") from error
        self._pool = ThreadPoolExecutor(self._parallel, thread_name_prefix="ctranslate2")

    async def close(self) -> None:
        """Free the model."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        self._generator = self._pool = None

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], *, shared_prefix: Sequence[int] = ()
    ) -> list[list[float]]:
        """See `Engine.score`. The hint is not used: a step over whole prompts is as fast for prompts this short."""
        if not prompts:
            return []
        self._check(prompts)
        scores: list[list[float]] = await self._run(self._score, prompts, list(candidates))
        return scores

    async def complete(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        """See `Engine.complete`."""
        if not prompts:
            return []
        self._check(prompts)
        completions: list[list[int]] = await self._run(self._complete, prompts, max_tokens)
        return completions

    async def _run(self, function: Any, *arguments: Any) -> Any:
        if self._pool is None:
            raise RuntimeError("the engine was not started")
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def _check(self, prompts: Sequence[Sequence[int]]) -> None:
        size = len(self._tokens)
        for prompt in prompts:
            if not 0 < len(prompt) <= self._context_tokens:
                raise BadInput(
                    "prompt_length", f"a prompt has {len(prompt)} tokens; 1 to {self._context_tokens} are taken"
                )
            if max(prompt) >= size or min(prompt) < 0:
                raise BadInput("prompt_ids", f"a prompt holds an id outside the vocabulary of {size}")

    def _score(self, prompts: Sequence[Sequence[int]], candidates: list[int]) -> list[list[float]]:
        tokens = self._tokens
        results = self._generator.generate_batch(
            [[tokens[i] for i in prompt] for prompt in prompts],
            max_length=1,
            min_length=1,
            max_batch_size=MAX_BATCH_TOKENS,
            batch_type="tokens",
            include_prompt_in_result=False,
            return_logits_vocab=True,
        )
        logits = np.array([np.asarray(result.logits[0][0], dtype=np.float32) for result in results])
        if logits.ndim == 3:
            logits = logits[:, 0]
        top = logits.max(axis=1)
        total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        scores: list[list[float]] = (logits[:, candidates] - total[:, None]).tolist()
        return scores

    def _complete(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        tokens = self._tokens
        results = self._generator.generate_batch(
            [[tokens[i] for i in prompt] for prompt in prompts],
            max_length=max_tokens,
            include_prompt_in_result=False,
            max_batch_size=MAX_BATCH_TOKENS,
            batch_type="tokens",
        )
        return [list(result.sequences_ids[0]) for result in results]
