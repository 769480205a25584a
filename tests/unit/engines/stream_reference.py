"""What a small checkpoint of the kind of Qwen3Guard-Stream says at each position: numpy, float64, without a cache.

It shares no code with the engines, so that they cannot be wrong alike.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from schemas.stream import ANSWER_CATEGORIES, PROMPT_CATEGORIES, SEVERITIES

Array = NDArray[np.float64]

NAMES = {
    "Sexual Content": "Sexual Content or Sexual Acts",
    "Self-Harm": "Suicide & Self-Harm",
    "Political": "Politically Sensitive Topics",
    "Copyright": "Copyright Violation",
    "Illegal Acts": "Non-violent Illegal Acts",
    "Unethical": "Unethical Acts",
}
"""The names of the published checkpoints that are not those of the taxonomy."""


class StreamReference:
    """One checkpoint folder."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text())
        self._weights = {
            name: value.astype(np.float64) for name, value in load_file(folder / "model.safetensors").items()
        }
        self._rows: dict[tuple[int, ...], dict[str, Array]] = {}

    def rows(self, ids: Sequence[int]) -> dict[str, Array]:
        """Give (n, 3), (n, 8), (n, 3) and (n, 9) probabilities by the names of `Judged`, in the schema's order."""
        key = tuple(ids)
        if key not in self._rows:
            hidden = self._hidden(np.asarray(ids))
            self._rows[key] = {
                "risk": self._head(hidden, "", "risk_level_head", "response_risk_level_map", SEVERITIES),
                "categories": self._head(hidden, "", "category_head", "response_category_map", ANSWER_CATEGORIES),
                "prompt_risk": self._head(hidden, "query_", "risk_level_head", "query_risk_level_map", SEVERITIES),
                "prompt_categories": self._head(
                    hidden, "query_", "category_head", "query_category_map", PROMPT_CATEGORIES
                ),
            }
        return self._rows[key]

    def _head(self, hidden: Array, prefix: str, head: str, name: str, labels: Sequence[str]) -> Array:
        inner = hidden @ self._weights[f"{prefix}risk_level_category_pre.weight"].T
        inner = self._norm(inner, f"{prefix}risk_level_category_layernorm")
        probabilities = _softmax(inner @ self._weights[f"{prefix}{head}.weight"].T)
        numbers = {NAMES.get(label, label): int(number) for number, label in self.config[name].items()}
        return probabilities[:, [numbers[str(label)] for label in labels]]

    def _hidden(self, ids: NDArray[np.int64]) -> Array:
        config, weights = self.config, self._weights
        x = weights["model.embed_tokens.weight"][ids]
        at = np.arange(len(ids))
        width = config["head_dim"]
        angles = at[:, None] * config["rope_theta"] ** (-np.arange(0, width, 2) / width)
        far = at[:, None] - at[None, :]
        seen = far >= 0
        if config["use_sliding_window"]:
            seen &= far < config["sliding_window"]
        for layer in range(config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            n = self._norm(x, f"{prefix}input_layernorm")
            heads = {
                kind: (n @ weights[f"{prefix}self_attn.{kind}_proj.weight"].T).reshape(len(ids), -1, width)
                for kind in "qkv"
            }
            query = _turned(self._norm(heads["q"], f"{prefix}self_attn.q_norm"), angles)
            key = _turned(self._norm(heads["k"], f"{prefix}self_attn.k_norm"), angles)
            group = query.shape[1] // key.shape[1]
            key, value = np.repeat(key, group, axis=1), np.repeat(heads["v"], group, axis=1)
            scores = np.einsum("ihd,jhd->hij", query, key) / width**0.5
            mixed = np.einsum("hij,jhd->ihd", _softmax(np.where(seen, scores, -np.inf)), value)
            x = x + mixed.reshape(len(ids), -1) @ weights[f"{prefix}self_attn.o_proj.weight"].T
            n = self._norm(x, f"{prefix}post_attention_layernorm")
            gate = n @ weights[f"{prefix}mlp.gate_proj.weight"].T
            up = n @ weights[f"{prefix}mlp.up_proj.weight"].T
            x = x + (gate / (1 + np.exp(-gate)) * up) @ weights[f"{prefix}mlp.down_proj.weight"].T
        return self._norm(x, "model.norm")

    def _norm(self, x: Array, name: str) -> Array:
        mean = (x**2).mean(axis=-1, keepdims=True)
        return np.asarray(x / np.sqrt(mean + self.config["rms_norm_eps"]) * self._weights[f"{name}.weight"])


def _turned(x: Array, angles: Array) -> Array:
    """Turn each head's vectors by their position, as Qwen3 does: the first half with the second half."""
    cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _softmax(x: Array) -> Array:
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


@cache
def stream_reference(folder: Path) -> StreamReference:
    """Read a checkpoint once."""
    return StreamReference(folder)
