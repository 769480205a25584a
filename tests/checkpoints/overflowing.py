"""guard-nano with one token that its numbers overflow on: whatever prompt holds it has NaN for every candidate."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

from workers.guard.load import checkpoint_folder

CULPRIT = 299
"""The token."""

NAN = b"\x00\x7e"
"""As float16, the type of the weights."""

EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def write_overflowing(folder: Path) -> Path:
    """Write the checkpoint in Hugging Face's format. Its head is another tensor: tied, each prompt would overflow."""
    shutil.copytree(checkpoint_folder("guard-nano", engine="transformers"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    weights = folder / "model.safetensors"
    header, data = _read(weights)
    start, end = header[EMBEDDINGS]["data_offsets"]
    width = (end - start) // config["vocab_size"]
    header[HEAD] = {**header[EMBEDDINGS], "data_offsets": [len(data), len(data) + end - start]}
    data += data[start:end]
    row = start + CULPRIT * width
    data[row : row + width] = NAN * (width // len(NAN))
    text = json.dumps(header).encode()
    weights.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder


def _read(weights: Path) -> tuple[dict[str, Any], bytearray]:
    """Read a file of safetensors: the length of its header, the header, and all tensors one behind the other."""
    whole = weights.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header: dict[str, Any] = json.loads(whole[8 : 8 + length])
    return header, bytearray(whole[8 + length :])
