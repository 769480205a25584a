"""CTranslate2: the bundled default, and production on a CPU in int8."""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workers.engines.engine import Refused, checked_row
from workers.engines.in_process import InProcessEngine
from workers.engines.lengths import check_length
from workers.errors import Misconfigured

MAX_BATCH_TOKENS = 4_096
"""Tokens of a step, with padding. With more, the CPU's caches are too small and a step gets slower."""

CALLS_AT_A_TIME = 2
"""While one call waits for its last batches, the free cores run the batches of another call."""


class CTranslate2Engine(InProcessEngine):
    """Runs one model folder in threads that release the GIL.

    `threads` batches run at a time, one core each (by default all cores). For a small model this is faster than several
    cores for one batch.
    """

    def __init__(self, folder: Path, *, threads: int | None = None, context_tokens: int = 2048) -> None:
        super().__init__("CTranslate2", threads=CALLS_AT_A_TIME, context_tokens=context_tokens)
        self._folder = folder
        self._batches = threads or len(os.sched_getaffinity(0))
        self._tokens: list[str] = []

    def _load(self) -> Any:
        import ctranslate2  # The import takes half a second, and only this engine needs it.

        if not (self._folder / "model.bin").is_file():
            raise Misconfigured(f"guard.model: {self._folder} has no CTranslate2 model (model.bin is missing)")
        try:
            config = json.loads((self._folder / "config.json").read_text(encoding="utf-8"))
            learnt = config.get("max_position_embeddings") if isinstance(config, dict) else None
            check_length("guard.context_tokens", self._context_tokens, self._folder, learnt)
            self._tokens = json.loads((self._folder / "vocabulary.json").read_text(encoding="utf-8"))
            return ctranslate2.Generator(str(self._folder), device="cpu", inter_threads=self._batches, intra_threads=1)
        except (RuntimeError, ValueError, OSError) as error:
            raise Misconfigured(f"guard.model: {self._folder} is invalid: {error}") from error

    def _vocabulary(self) -> int:
        return len(self._tokens)

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = math.inf
    ) -> list[list[float] | Refused]:
        """See `Engine.score`."""
        return await self._answer(prompts, 1, lambda valid: self._run(self._score, valid, list(candidates)))

    async def complete(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, deadline: float = math.inf
    ) -> list[list[int] | Refused]:
        """See `Engine.complete`."""
        return await self._answer(prompts, max_tokens, lambda valid: self._run(self._complete, valid, max_tokens))

    def _score(
        self, generator: Any, prompts: Sequence[Sequence[int]], candidates: list[int]
    ) -> list[list[float] | Refused]:
        scores: list[list[float] | Refused] = [[]] * len(prompts)
        for indices, results in self._generate(
            generator, prompts, max_length=1, min_length=1, return_logits_vocab=True
        ):
            logits = np.array([np.asarray(result.logits[0][-1], dtype=np.float32) for result in results])
            logits -= logits.max(axis=1, keepdims=True)
            asked = logits[:, candidates]
            # In place: to allocate a second array of the vocabulary's size for each prompt took twice as long as the
            # sums.
            total = np.exp(logits, out=logits).sum(axis=1, keepdims=True)
            for index, row in zip(indices, (asked - np.log(total)).tolist(), strict=True):
                scores[index] = checked_row(row)
        return scores

    def _complete(self, generator: Any, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        completions: list[list[int]] = [[]] * len(prompts)
        for indices, results in self._generate(generator, prompts, max_length=max_tokens):
            for index, result in zip(indices, results, strict=True):
                completions[index] = list(result.sequences_ids[0])
        return completions

    def _generate(
        self, generator: Any, prompts: Sequence[Sequence[int]], **options: Any
    ) -> Iterator[tuple[list[int], list[Any]]]:
        """Run one batch for each prompt length; yield the prompts' indices and their results.

        In a batch of mixed lengths, CTranslate2 reads every prompt's logits at the end of the shortest prompt, and runs
        the rest of the longer ones token by token: 30 % of the labels were wrong, and it was slow.
        """
        tokens = self._tokens
        by_length: dict[int, list[int]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            by_length[len(prompt)].append(index)
        started = []
        for length, indices in sorted(by_length.items()):
            step = max(1, MAX_BATCH_TOKENS // length)
            for start in range(0, len(indices), step):
                part = indices[start : start + step]
                results = generator.generate_batch(
                    [[tokens[i] for i in prompts[index]] for index in part],
                    include_prompt_in_result=False,
                    asynchronous=True,
                    **options,
                )
                started.append((part, results))
        for part, results in started:
            yield part, [result.result() for result in results]
            self.answered += len(part)
