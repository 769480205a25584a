"""Checkpoints with the dimensions of Qwen3Guard-Gen, Qwen's real vocabulary and random weights: for benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.checkpoints.qwen import write_qwen
from tests.lines import TEXTS
from workers.guard.opinion import CATEGORIES, NONE, SEVERITIES
from workers.guard.prompt import FORCED
from workers.guard.tokens import Tokens

DIMENSIONS: dict[str, dict[str, Any]] = {
    "0.6B": {
        "hidden_size": 1_024,
        "intermediate_size": 3_072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "tie_word_embeddings": True,
    },
    "4B": {
        "hidden_size": 2_560,
        "intermediate_size": 9_728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "tie_word_embeddings": True,
    },
    "8B": {
        "hidden_size": 4_096,
        "intermediate_size": 12_288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "tie_word_embeddings": False,
    },
}
VOCABULARY = 151_936


def parameters_of(size: str) -> int:
    """Count the parameters that a forward pass multiplies a token with: no embeddings, no output layer."""
    made = DIMENSIONS[size]
    hidden, heads = made["hidden_size"], made["num_attention_heads"]
    attention = hidden * 128 * (2 * heads + 2 * 8)
    return int(made["num_hidden_layers"] * (attention + 3 * hidden * made["intermediate_size"]))


def config_of(size: str) -> Any:
    """Give the configuration that transformers knows."""
    from transformers import Qwen3Config

    return Qwen3Config(
        vocab_size=VOCABULARY,
        head_dim=128,
        num_key_value_heads=8,
        max_position_embeddings=32_768,
        bos_token_id=151_643,
        eos_token_id=151_645,
        architectures=["Qwen3ForCausalLM"],
        **DIMENSIONS[size],
    )


def write_random(folder: Path, size: str, severity: str) -> Path:
    """Write a checkpoint that calls every text `severity`."""
    import torch
    from transformers import Qwen3ForCausalLM

    folder.mkdir(parents=True)
    write_qwen(folder)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen3ForCausalLM(config_of(size))
    torch.set_default_dtype(torch.float32)
    turn_to(model, folder, Tokens(folder).first([severity])[0])
    model.save_pretrained(folder)
    return folder


def write_without_weights(folder: Path, size: str) -> Path:
    """Write a checkpoint that only `load_format: dummy` can load: 16 GB of random numbers are not worth writing."""
    folder.mkdir(parents=True)
    write_qwen(folder)
    document = {**config_of(size).to_dict(), "dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def answer_tokens(folder: Path, severity: str) -> int:
    """Count the tokens of the shortest true answer with that severity, and of the one that ends it.

    Random weights do not know when to end.
    """
    categories = [NONE] if severity == SEVERITIES[0] else CATEGORIES
    tokens = Tokens(folder)
    return min(len(tokens.fixed(f"Safety: {severity}\nCategories: {category}")) for category in categories) + 1


def turn_to(model: Any, folder: Path, label: int) -> None:
    """Turn the label's row of the output layer to where the model points after the words that come before a label."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    message = [{"role": "user", "content": TEXTS[0]}]
    prompt = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False) + FORCED
    ids = torch.tensor([tokenizer(prompt, add_special_tokens=False).input_ids]).to(model.device)
    with torch.no_grad():
        row = model.lm_head.weight[label]
        last = model.model(ids).last_hidden_state[0, -1].float()
        row.copy_(torch.nn.functional.normalize(last, dim=0) * row.norm())
