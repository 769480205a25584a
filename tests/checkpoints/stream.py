"""A small checkpoint of the kind of Qwen3Guard-Stream with random weights, whose outputs change at every token."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from workers.engines.stream import Floats
from workers.guard.load import checkpoint_folder

VOCABULARY = 48_000
"""That of guard-nano, whose tokenizer the checkpoint has."""

WINDOW = 256

CULPRIT = VOCABULARY - 1
"""The token whose embedding is not a number."""

HIDDEN, INNER, MLP, LAYERS, HEADS, KV_HEADS, HEAD_WIDTH = 64, 32, 128, 2, 2, 1, 64

SEVERITIES = {"0": "Safe", "1": "Unsafe", "2": "Controversial"}
CATEGORIES = {
    "0": "Violent",
    "1": "Sexual Content",
    "2": "Self-Harm",
    "3": "Political",
    "4": "PII",
    "5": "Copyright",
    "6": "Illegal Acts",
    "7": "Unethical",
}
"""The orders and names of the published checkpoints."""

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3ForGuardModel"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "dtype": "float32",
    "guard_inner_size": INNER,
    "head_dim": HEAD_WIDTH,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "initializer_range": 0.02,
    "intermediate_size": MLP,
    "max_position_embeddings": 8192,
    "max_window_layers": LAYERS,
    "model_type": "qwen3",
    "num_attention_heads": HEADS,
    "num_category": 8,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS,
    "num_query_category": 9,
    "num_query_risk_level": 3,
    "num_risk_level": 3,
    "query_category_map": {**CATEGORIES, "8": "Jailbreak"},
    "query_risk_level_map": SEVERITIES,
    "response_category_map": CATEGORIES,
    "response_risk_level_map": SEVERITIES,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": VOCABULARY,
}


def write_stream(folder: Path, *, window: int | None = None, seed: int = 0, **changes: Any) -> Path:
    """Write the checkpoint into `folder`, which may exist. `changes` replace values of `config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(checkpoint_folder("guard-nano", engine="transformers") / name, folder / name)
    config = CONFIG | changes
    if window is not None:
        config |= {
            "use_sliding_window": True,
            "sliding_window": window,
            "max_window_layers": 0,
            "layer_types": ["sliding_attention"] * LAYERS,
        }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    save_file(weights(seed), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def weights(seed: int) -> dict[str, Floats]:
    """Draw the weights. Queries and keys are large, so that each position attends to a few others."""
    draw = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, scale: float = 1.0) -> Floats:
        return np.asarray(draw.standard_normal((rows, columns)) * scale / columns**0.5, np.float32)

    def norm(width: int, mean: float = 1.0) -> Floats:
        return np.asarray(mean * (1 + 0.2 * draw.standard_normal(width)), np.float32)

    made = {"model.embed_tokens.weight": matrix(VOCABULARY, HIDDEN, 8.0), "model.norm.weight": norm(HIDDEN)}
    made["model.embed_tokens.weight"][CULPRIT] = np.nan
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        made |= {
            f"{prefix}input_layernorm.weight": norm(HIDDEN),
            f"{prefix}post_attention_layernorm.weight": norm(HIDDEN),
            f"{prefix}self_attn.q_proj.weight": matrix(HEADS * HEAD_WIDTH, HIDDEN),
            f"{prefix}self_attn.k_proj.weight": matrix(KV_HEADS * HEAD_WIDTH, HIDDEN),
            f"{prefix}self_attn.v_proj.weight": matrix(KV_HEADS * HEAD_WIDTH, HIDDEN),
            f"{prefix}self_attn.o_proj.weight": matrix(HIDDEN, HEADS * HEAD_WIDTH, 2.0),
            f"{prefix}self_attn.q_norm.weight": norm(HEAD_WIDTH, 1.5),
            f"{prefix}self_attn.k_norm.weight": norm(HEAD_WIDTH, 1.5),
            f"{prefix}mlp.gate_proj.weight": matrix(MLP, HIDDEN),
            f"{prefix}mlp.up_proj.weight": matrix(MLP, HIDDEN),
            f"{prefix}mlp.down_proj.weight": matrix(HIDDEN, MLP),
        }
    for prefix, categories in (("", 8), ("query_", 9)):
        made |= {
            f"{prefix}risk_level_category_pre.weight": matrix(INNER, HIDDEN),
            f"{prefix}risk_level_category_layernorm.weight": norm(INNER),
            f"{prefix}risk_level_head.weight": matrix(3, INNER, 2.0),
            f"{prefix}category_head.weight": matrix(categories, INNER, 2.0),
        }
    return made
