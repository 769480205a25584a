"""The model class of Qwen3Guard-Stream in vLLM: Qwen3 with two pairs of heads, and the rows of the last tokens.

vLLM's processes import this module, and nothing else does. It loads the tensors of the published checkpoints by their
names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import nn
from vllm.forward_context import get_forward_context
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.models.qwen3 import Qwen3Model
from vllm.model_executor.models.utils import AutoWeightsLoader, maybe_prefix

from schemas.stream import ANSWER_CATEGORIES, PROMPT_CATEGORIES, SEVERITIES
from workers.engines.stream_vllm_rows import ROWS


class Qwen3ForGuardModel(nn.Module):
    """Returns, at each token, what `stream_vllm_rows` describes: shape (tokens, COLUMNS), float32."""

    hf_to_vllm_mapper = Qwen3Model.hf_to_vllm_mapper
    packed_modules_mapping: ClassVar = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__()
        self.config = config = vllm_config.model_config.hf_config
        self.model = Qwen3Model(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"))
        hidden, inner, epsilon = config.hidden_size, config.guard_inner_size, config.rms_norm_eps
        self.risk_level_category_pre = nn.Linear(hidden, inner, bias=False)
        self.risk_level_category_layernorm = RMSNorm(inner, eps=epsilon)
        self.risk_level_head = nn.Linear(inner, len(SEVERITIES), bias=False)
        self.category_head = nn.Linear(inner, len(ANSWER_CATEGORIES), bias=False)
        self.query_risk_level_category_pre = nn.Linear(hidden, inner, bias=False)
        self.query_risk_level_category_layernorm = RMSNorm(inner, eps=epsilon)
        self.query_risk_level_head = nn.Linear(inner, len(SEVERITIES), bias=False)
        self.query_category_head = nn.Linear(inner, len(PROMPT_CATEGORIES), bias=False)
        self.make_empty_intermediate_tensors = self.model.make_empty_intermediate_tensors

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the tokens' embeddings."""
        return self.model.embed_input_ids(input_ids)

    def forward(
        self,
        input_ids: torch.Tensor,
        positions: torch.Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Run one step: the next tokens of several requests, one request behind the other."""
        hidden = self.model(input_ids, positions, intermediate_tensors, inputs_embeds)
        inner = self.risk_level_category_layernorm(self.risk_level_category_pre(hidden))
        answer = torch.cat([self.risk_level_head(inner), self.category_head(inner)], -1).float()
        inner = self.query_risk_level_category_layernorm(self.query_risk_level_category_pre(hidden))
        prompt = torch.cat([self.query_risk_level_head(inner), self.query_category_head(inner)], -1).float()
        windows, counts = last_rows(answer, query_starts())
        return torch.cat([windows, counts[:, None].float(), positions.reshape(-1, 1).float(), prompt], -1)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return the rows as they are: vLLM returns logits unchanged."""
        return hidden_states

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load a checkpoint. A head of a language model in it has no use."""
        used = ((name, tensor) for name, tensor in weights if not name.startswith("lm_head."))
        loaded: set[str] = AutoWeightsLoader(self).load_weights(used)
        return loaded


def query_starts() -> torch.Tensor | None:
    """Return the index of the first token of each request in this step; None if vLLM does not say it."""
    metadata = get_forward_context().attn_metadata
    if isinstance(metadata, dict):
        metadata = next(iter(metadata.values()), None)
    return getattr(metadata, "query_start_loc", None)


def last_rows(rows: torch.Tensor, starts: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each token the `ROWS` rows up to its own, side by side, and how many of them are of its request.

    `rows` has the shape (tokens, width). A row of another request may be in the place of one that the request does not
    have in this step: only the last `count` rows are valid. Without `starts` only the token's own row is.
    """
    tokens = len(rows)
    at = torch.arange(tokens, device=rows.device)
    if starts is None:
        first = at
    else:
        starts = starts.to(rows.device, torch.long)
        own = torch.searchsorted(starts, at, right=True) - 1
        first = starts[own.clamp(0, len(starts) - 1)]
    counts = (at - first + 1).clamp(max=ROWS)
    before = at[:, None] - torch.arange(ROWS - 1, -1, -1, device=rows.device)[None]
    return rows[before.clamp(min=0)].reshape(tokens, -1), counts
