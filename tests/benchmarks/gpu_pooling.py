"""A side of `make bench-gpu` that was tried: the severity's question as a classifier of three labels.

vLLM makes one of a causal model by the labels' rows of its output layer (`classifier_from_token`). It then pools the
last token and samples nothing. It answers one question only, so that the guard cannot run on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workers.engines.vllm import VllmEngine
from workers.guard.opinion import SEVERITIES
from workers.guard.tokens import Tokens


def pooling_arguments(folder: Path) -> dict[str, Any]:
    """Give what makes a classifier of a checkpoint."""
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder).convert_ids_to_tokens(Tokens(folder).first(SEVERITIES))
    overrides = {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": tokens,
        "method": "no_post_processing",
        "num_labels": len(tokens),
    }
    return {"runner": "pooling", "convert": "classify", "hf_overrides": overrides}


class PoolingEngine(VllmEngine):
    """Gives three logits for each prompt, whatever candidates are asked for."""

    async def _template(self, llm: Any, max_tokens: int, candidates: tuple[int, ...] | None) -> Any:
        from vllm.pooling_params import PoolingParams

        made = llm.input_processor.process_inputs(
            "template",
            {"type": "token", "prompt_token_ids": [0]},
            PoolingParams(task="classify", use_activation=False),
            supported_tasks=await llm.get_supported_tasks(),
        )
        self._templates[max_tokens, candidates] = made
        return made

    async def score(self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = 0) -> Any:
        """Give the logits."""
        answers: Any = await self._ask(prompts, 1, None)
        return [answer.last.pooling_output.tolist() for answer in answers]
