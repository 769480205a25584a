"""Hugging Face transformers: the reference. One prompt at a time in float32: slow, simple and correct."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workers.engines.engine import Refused, checked_row
from workers.engines.in_process import InProcessEngine
from workers.engines.lengths import check_length
from workers.errors import Misconfigured, to_install


class TransformersEngine(InProcessEngine):
    """Runs one checkpoint folder on the CPU, in one thread."""

    def __init__(self, folder: Path, *, threads: int | None = None, context_tokens: int = 2048) -> None:
        super().__init__("transformers", threads=1, context_tokens=context_tokens)
        self._folder = folder
        self._cores = threads
        self._ends: frozenset[int] = frozenset()

    def _load(self) -> Any:
        try:
            import torch
            from transformers import AutoModelForCausalLM
        except ImportError as error:
            raise Misconfigured(
                f"guard.engine: 'transformers' needs the extra: {to_install('transformers')} ({error})"
            ) from error
        if self._cores is not None:
            torch.set_num_threads(self._cores)
        try:
            # Left out, `trust_remote_code` would make transformers ask at the terminal.
            model = AutoModelForCausalLM.from_pretrained(
                self._folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # Each file format has its own error, such as SafetensorError.
            raise Misconfigured(f"guard.model: transformers cannot load {self._folder}: {error}") from error
        learnt = getattr(model.config, "max_position_embeddings", None)
        check_length("guard.context_tokens", self._context_tokens, self._folder, learnt)
        ends = model.generation_config.eos_token_id
        self._ends = frozenset([ends] if isinstance(ends, int) else ends or [])
        return model.eval()

    def _vocabulary(self) -> int:
        return int(self._model.config.vocab_size)

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = math.inf
    ) -> list[list[float] | Refused]:
        """See `Engine.score`."""

        async def score(valid: Sequence[Sequence[int]]) -> list[list[float] | Refused]:
            return [await self._run(self._score, list(prompt), list(candidates)) for prompt in valid]

        return await self._answer(prompts, 1, score)

    async def complete(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, deadline: float = math.inf
    ) -> list[list[int] | Refused]:
        """See `Engine.complete`."""

        async def complete(valid: Sequence[Sequence[int]]) -> list[list[int]]:
            return [await self._run(self._complete, list(prompt), max_tokens) for prompt in valid]

        return await self._answer(prompts, max_tokens, complete)

    def _score(self, model: Any, prompt: list[int], candidates: list[int]) -> list[float] | Refused:
        scores: list[float] = _next_token(model, prompt)[candidates].tolist()
        self.answered += 1
        return checked_row(scores)

    def _complete(self, model: Any, prompt: list[int], max_tokens: int) -> list[int]:
        completion: list[int] = []
        while len(completion) < max_tokens:
            best = int(_next_token(model, prompt + completion).argmax())
            if best in self._ends:
                break
            completion.append(best)
        self.answered += 1
        return completion


def _next_token(model: Any, ids: list[int]) -> Any:
    """Return the log-probabilities of the token after `ids`, a tensor of the vocabulary's size."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
    return torch.log_softmax(logits.float(), dim=-1)
