"""guard-nano's network, and its folder in the shape that every engine loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import rotate_half

from infra.nano.prompts import CHAT_TEMPLATE, SPECIAL

_POSITIONS = 2048
_START_SCALE = 0.03
_NEARLY_NOTHING = 0.1
_OUTPUT_SCALE = 4.0
"""Where the last norm's weights begin. The embeddings are short, and with 1 no token could stand out of 48,000."""


def new_model(vocabulary: int, hidden: int, layers: int) -> Qwen3ForCausalLM:
    """Give an untrained model with tied embeddings: most of it is the vocabulary."""
    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        head_dim=64,
        max_position_embeddings=_POSITIONS,
        tie_word_embeddings=True,
        rope_theta=10_000.0,
        bos_token_id=SPECIAL.index("<|endoftext|>"),
        eos_token_id=SPECIAL.index("<|im_end|>"),
        pad_token_id=SPECIAL.index("<|endoftext|>"),
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        model.model.norm.weight.fill_(_OUTPUT_SCALE)
    return model


def start_with_meanings(model: Qwen3ForCausalLM, vectors: npt.NDArray[np.float32]) -> None:
    """Let the tokens' embeddings start from `vectors`, shape (tokens, hidden), with a little noise."""
    start = torch.from_numpy(vectors)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(_START_SCALE * (start + 0.2 * torch.randn_like(start)))


def start_as_bag(model: Qwen3ForCausalLM) -> None:
    """Let the layers below the last one pass everything on, and the last one look at all tokens nearly alike."""
    *lower, top = model.model.layers
    with torch.no_grad():
        for layer in lower:
            layer.self_attn.o_proj.weight.mul_(_NEARLY_NOTHING)
            layer.mlp.down_proj.weight.mul_(_NEARLY_NOTHING)
        top.self_attn.q_norm.weight.mul_(_NEARLY_NOTHING)


def bag_hidden(model: Qwen3ForCausalLM, prompts: list[list[int]]) -> torch.Tensor:
    """Give what `hidden_at` would give of the last token, if the last layer looked at all tokens alike and the others
    did nothing.

    It is a small part of the work, and most of what there is to learn: the meaning of the tokens.
    """
    device = model.device
    ids = torch.tensor([token for prompt in prompts for token in prompt], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    top = model.model.layers[-1]
    embedded = model.model.embed_tokens(ids)
    whose = torch.repeat_interleave(torch.arange(len(prompts), device=device), lengths)
    total = torch.zeros(len(prompts), embedded.shape[1], device=device)
    mean = total.index_add(0, whose, top.input_layernorm(embedded)) / lengths[:, None]
    hidden = embedded[lengths.cumsum(0) - 1] + top.self_attn.o_proj(top.self_attn.v_proj(mean))
    hidden = hidden + top.mlp(top.post_attention_layernorm(hidden))
    return model.model.norm(hidden)


def hidden_at(model: Qwen3ForCausalLM, sequences: list[list[int]], positions: list[list[int]]) -> torch.Tensor:
    """Give the last hidden states at each sequence's `positions`, all in one row after the other.

    The last layer makes keys and values of all tokens, and all else of those positions alone.
    """
    device = model.device
    asked = max(len(each) for each in positions)
    at = torch.tensor([[*each, *[0] * (asked - len(each))] for each in positions], device=device)
    is_asked = torch.tensor([[number < len(each) for number in range(asked)] for each in positions], device=device)
    ids = torch.zeros(len(sequences), max(len(each) for each in sequences), dtype=torch.long)
    for row, each in enumerate(sequences):
        ids[row, : len(each)] = torch.tensor(each)
    # Padding is on the right and attention is causal: what follows a token cannot change it.
    hidden = model.model.embed_tokens(ids.to(device))
    cos, sin = model.model.rotary_emb(hidden, torch.arange(ids.shape[1], device=device)[None])
    *lower, top = model.model.layers
    for layer in lower:
        hidden = layer(hidden, attention_mask=None, position_embeddings=(cos, sin))
    attention = top.self_attn
    normed = top.input_layernorm(hidden)
    heads = (*ids.shape, -1, attention.head_dim)
    keys = attention.k_norm(attention.k_proj(normed).view(heads)).transpose(1, 2)
    values = attention.v_proj(normed).view(heads).transpose(1, 2)
    keys = keys * cos[:, None] + rotate_half(keys) * sin[:, None]
    rows = torch.arange(len(sequences), device=device)[:, None]
    own = attention.q_proj(normed[rows, at]).view(*at.shape, -1, attention.head_dim)
    query = attention.q_norm(own).transpose(1, 2)
    query = query * cos[0, at][:, None] + rotate_half(query) * sin[0, at][:, None]
    is_seen = (torch.arange(ids.shape[1], device=device) <= at[..., None])[:, None]
    mixed = torch.nn.functional.scaled_dot_product_attention(query, keys, values, attn_mask=is_seen)
    hidden = hidden[rows, at] + attention.o_proj(mixed.transpose(1, 2).flatten(2))
    hidden = hidden + top.mlp(top.post_attention_layernorm(hidden))
    return model.model.norm(hidden)[is_asked]


def write(model: Qwen3ForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the Hugging Face folder, in half precision: half the size, and the same labels."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = {
        name: p.detach().cpu().half().contiguous() for name, p in model.state_dict().items() if name != "lm_head.weight"
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.dtype = "float16"
    model.config.architectures = ["Qwen3ForCausalLM"]
    model.config.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    shutil.copyfile(CHAT_TEMPLATE, folder / "chat_template.jinja")
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": _POSITIONS,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE.read_text(encoding="utf-8"),
    }
    generation = {
        "do_sample": False,
        "eos_token_id": SPECIAL.index("<|im_end|>"),
        "pad_token_id": SPECIAL.index("<|endoftext|>"),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps(generation) + "\n", encoding="utf-8")
