"""nano-stream's network: guard-nano's layers behind a sliding window, and the heads of the published checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Qwen3Config, Qwen3Model
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from schemas.stream import ANSWER_CATEGORIES, PROMPT_CATEGORIES

WINDOW = 256
INNER = 128
PUBLISHED_SEVERITIES = (0, 2, 1)
"""The published checkpoints have Safe, Unsafe, Controversial: the number in SEVERITIES of each of their columns."""
_POSITIONS = 8_192
_CHAT_TEMPLATE = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
_NAMES = ("Safe", "Unsafe", "Controversial")


class StreamNetwork(torch.nn.Module):  # type: ignore[misc]  # torch is installed for training alone
    """The network: hidden states of all positions, and two heads for the answer and two for the user's turn."""

    def __init__(self, config: Qwen3Config) -> None:
        super().__init__()
        self.config = config
        self.model = Qwen3Model(config)
        for side, categories in (("", ANSWER_CATEGORIES), ("query_", PROMPT_CATEGORIES)):
            setattr(self, f"{side}risk_level_category_pre", torch.nn.Linear(config.hidden_size, INNER, bias=False))
            setattr(self, f"{side}risk_level_category_layernorm", Qwen3RMSNorm(INNER, eps=config.rms_norm_eps))
            setattr(self, f"{side}risk_level_head", torch.nn.Linear(INNER, 3, bias=False))
            setattr(self, f"{side}category_head", torch.nn.Linear(INNER, len(categories), bias=False))

    def heads(self, hidden: torch.Tensor, side: str = "") -> tuple[torch.Tensor, torch.Tensor]:
        """Give the logits of the severities, in the order of SEVERITIES, and of the categories."""
        pre = getattr(self, f"{side}risk_level_category_pre")(hidden)
        inner = getattr(self, f"{side}risk_level_category_layernorm")(pre)
        risk = getattr(self, f"{side}risk_level_head")(inner)
        return risk[..., list(PUBLISHED_SEVERITIES)], getattr(self, f"{side}category_head")(inner)


def new_network(source: Path, vocabulary: int) -> tuple[StreamNetwork, Tokenizer]:
    """Start from guard-nano's folder, with the first `vocabulary` of its tokens.

    The tokens of a byte-pair encoding are in the order of their merges. So its first ones are again such an encoding.
    """
    made = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    ids = made["model"]["vocab"]
    made["model"]["vocab"] = {token: number for token, number in ids.items() if number < vocabulary}
    made["model"]["merges"] = [pair for pair in made["model"]["merges"] if ids["".join(pair)] < vocabulary]
    tokenizer = Tokenizer.from_str(json.dumps(made))
    config = Qwen3Config.from_pretrained(source)
    config.vocab_size = vocabulary
    config.use_sliding_window = True
    config.sliding_window = WINDOW
    config.max_window_layers = 0
    config.layer_types = ["sliding_attention"] * config.num_hidden_layers
    config.max_position_embeddings = _POSITIONS
    config.dtype = "float32"
    network = StreamNetwork(config)
    with safe_open(source / "model.safetensors", "pt") as stored:
        weights = {name.removeprefix("model."): stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118 - it cannot be iterated itself
    weights["embed_tokens.weight"] = weights["embed_tokens.weight"][:vocabulary]
    network.model.load_state_dict(weights)
    return network, tokenizer


def write(network: StreamNetwork, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the folder in the published checkpoints' form, in half precision."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = {name: p.detach().cpu().half().contiguous() for name, p in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    network.config.dtype = "float16"
    network.config.architectures = ["Qwen3ForGuardModel"]
    network.config.save_pretrained(folder)
    path = folder / "config.json"
    described = json.loads(path.read_text(encoding="utf-8")) | {
        "guard_inner_size": INNER,
        "num_risk_level": 3,
        "num_category": len(ANSWER_CATEGORIES),
        "num_query_risk_level": 3,
        "num_query_category": len(PROMPT_CATEGORIES),
        "response_risk_level_map": dict(enumerate(_NAMES)),
        "response_category_map": dict(enumerate(ANSWER_CATEGORIES)),
        "query_risk_level_map": dict(enumerate(_NAMES)),
        "query_category_map": dict(enumerate(PROMPT_CATEGORIES)),
    }
    path.write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": _POSITIONS,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
        "chat_template": _CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
