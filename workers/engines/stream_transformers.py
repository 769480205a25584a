"""Hugging Face transformers with a cache for each session: the reference for streams, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workers.engines.lengths import check_length
from workers.engines.stream import Floats
from workers.engines.stream_checkpoint import (
    HEAD_WIDTHS,
    HEADS,
    PREFIXES,
    StreamConfig,
    Weights,
    read_config,
)
from workers.engines.stream_in_process import InProcessStreamEngine, Piece
from workers.errors import Misconfigured, to_install


class TransformersStreamEngine(InProcessStreamEngine):
    """Runs one checkpoint folder in Hugging Face's format on the CPU."""

    def __init__(
        self, folder: Path, *, max_sessions: int = 8, max_tokens: int = 4096, threads: int | None = None
    ) -> None:
        super().__init__("transformers", folder, max_sessions=max_sessions, max_tokens=max_tokens)
        self._cores = threads

    def _load(self) -> tuple[StreamConfig, Any]:
        try:
            import torch
            from transformers import Qwen3Model
        except ImportError as error:
            raise Misconfigured(
                f"streams.engine: 'transformers' needs the extra: {to_install('transformers')} ({error})"
            ) from error
        config = read_config(self._folder)
        check_length("streams.max_tokens", self._max_tokens, self._folder, config.positions)
        if self._cores is not None:
            torch.set_num_threads(self._cores)

        class Backbone(Qwen3Model):  # type: ignore[misc]  # transformers is not typed.
            _keys_to_ignore_on_load_unexpected = (r"risk_level", r"category")  # The heads are below.

        try:
            # The checkpoint's own code is never loaded.
            backbone = Backbone.from_pretrained(
                self._folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
            ).eval()
        except Exception as error:  # Each file format has its own error, such as SafetensorError.
            raise Misconfigured(f"streams.model: transformers cannot load {self._folder}: {error}") from error
        return config, _Model(backbone, Weights(self._folder), config)

    def _step(self, model: Any, pieces: Sequence[Piece]) -> Floats:
        return np.concatenate([model.run(piece) for piece in pieces])


class _Model:
    def __init__(self, backbone: Any, weights: Weights, config: StreamConfig) -> None:
        import torch

        self._backbone = backbone
        self._epsilon = config.epsilon
        self._caches: dict[int, Any] = {}
        """The keys and values of each slot."""
        self._heads = [
            (
                torch.from_numpy(
                    weights.tensor(f"{prefix}risk_level_category_pre.weight", config.inner, config.hidden)
                ),
                torch.from_numpy(weights.tensor(f"{prefix}risk_level_category_layernorm.weight", config.inner)),
                [
                    torch.from_numpy(weights.tensor(f"{prefix}{head}_head.weight", width, config.inner))
                    for head, width in zip(HEADS, widths, strict=True)
                ],
            )
            for prefix, widths in zip(PREFIXES, HEAD_WIDTHS, strict=True)
        ]

    def run(self, piece: Piece) -> Floats:
        """Return the outputs of all heads at each token, (n, 23)."""
        import torch
        from transformers import DynamicCache

        if piece.start == 0:
            self._caches[piece.slot] = DynamicCache(config=self._backbone.config)
        with torch.inference_mode():
            hidden = self._backbone(
                torch.tensor([piece.ids]), past_key_values=self._caches[piece.slot], use_cache=True
            ).last_hidden_state[0]
            outputs = []
            for before, norm, heads in self._heads:
                inner = hidden @ before.T
                inner = inner * torch.rsqrt(inner.pow(2).mean(-1, keepdim=True) + self._epsilon) * norm
                outputs += [inner @ head.T for head in heads]
            return np.asarray(torch.cat(outputs, -1).numpy(), np.float32)
