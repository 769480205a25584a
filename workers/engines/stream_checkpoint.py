"""Reads a checkpoint of the kind of Qwen3Guard-Stream: its dimensions, its labels and its weights."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workers.engines.stream import Floats
from workers.engines.stream_labels import WIDTH, Labels, read_labels
from workers.errors import Misconfigured

ARCHITECTURE = "Qwen3ForGuardModel"

HEADS = ("risk_level", "category")
"""The two heads behind each of the two layers of `PREFIXES`."""

PREFIXES = ("", "query_")
"""The layer that reads the answer, and the one that reads the user's turn."""

HEAD_WIDTHS = ((3, 8), (3, 9))
"""The outputs of the heads, by prefix and head."""

_WIDTHS = {"num_risk_level": 3, "num_category": 8, "num_query_risk_level": 3, "num_query_category": 9}


@dataclass(frozen=True)
class StreamConfig:
    """What an engine has to know of a checkpoint."""

    layers: int
    hidden: int
    inner: int
    """The width of the layer behind which the heads are: `guard_inner_size`."""
    mlp: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int
    positions: int
    """The most tokens that the model has learnt: `max_position_embeddings`."""
    epsilon: float
    theta: float
    window: int | None
    """How many tokens each layer sees, the current one included; None: all tokens."""
    labels: Labels


def read_config(folder: Path, setting: str = "streams.model") -> StreamConfig:
    """Read `config.json`. `setting` is named in errors.

    Raises:
        Misconfigured: it is missing or invalid, the checkpoint is of another kind, or the engines do not compute a part
            of it.
    """
    source = f"{setting}: {folder / 'config.json'}"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{source} cannot be read: {error}") from error
    return parse_config(config, source)


def parse_config(config: Any, source: str) -> StreamConfig:
    """See `read_config`."""
    kind = config.get("architectures") if isinstance(config, dict) else None
    if kind != [ARCHITECTURE]:
        raise Misconfigured(
            f"{source} is not of a checkpoint of the kind of Qwen3Guard-Stream: architectures is {kind}, "
            f"not [{ARCHITECTURE!r}]. guard.model takes checkpoints of the kind of Qwen3Guard-Gen"
        )
    for name, width in _WIDTHS.items():
        if config.get(name) != width:
            raise Misconfigured(f"{source}: {name} is {config.get(name)}, and not {width}")
    assert sum(_WIDTHS.values()) == WIDTH
    for name, supported in (("attention_bias", False), ("hidden_act", "silu")):
        if config.get(name, supported) != supported:
            raise Misconfigured(f"{source}: {name}: {config[name]} is not supported, only {supported}")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise Misconfigured(f"{source}: positions of the type {rope} are not supported, only the default one")
    try:
        return StreamConfig(
            layers=int(config["num_hidden_layers"]),
            hidden=int(config["hidden_size"]),
            inner=int(config["guard_inner_size"]),
            mlp=int(config["intermediate_size"]),
            heads=int(config["num_attention_heads"]),
            kv_heads=int(config["num_key_value_heads"]),
            head_width=int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]),
            vocabulary=int(config["vocab_size"]),
            positions=int(config["max_position_embeddings"]),
            epsilon=float(config["rms_norm_eps"]),
            theta=float(rope.get("rope_theta") or config["rope_theta"]),
            window=_window(config, source),
            labels=read_labels(config, source),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Misconfigured(f"{source} is invalid: {type(error).__name__}: {error}") from error


def _window(config: Mapping[str, Any], source: str) -> int | None:
    """Return the window of all layers, or None if all layers see all tokens."""
    layers = config["num_hidden_layers"]
    window = config.get("sliding_window") if config.get("use_sliding_window") else None
    kinds = config.get("layer_types")
    if kinds is None:
        first = config.get("max_window_layers", layers)
        kinds = [
            "sliding_attention" if window is not None and layer >= first else "full_attention"
            for layer in range(layers)
        ]
    if kinds == ["full_attention"] * layers:
        return None
    if kinds == ["sliding_attention"] * layers and isinstance(window, int) and window > 0:
        return window
    raise Misconfigured(
        f"{source}: all layers have to see all tokens, or the same window: layer_types is {kinds}, "
        f"sliding_window {config.get('sliding_window')}, use_sliding_window {config.get('use_sliding_window')}"
    )


class Weights:
    """The tensors of a checkpoint in safetensors, in one file or several, each read when it is asked for.

    The package `safetensors` gives numpy no bfloat16, the type of the published checkpoints.

    Raises (each method):
        Misconfigured: a file or a tensor is missing or invalid.
    """

    def __init__(self, folder: Path, setting: str = "streams.model") -> None:
        self._source = f"{setting}: {folder}"
        self._tensors: dict[str, tuple[Path, int, dict[str, Any]]] = {}
        for name in self._files(folder):
            try:
                with (folder / name).open("rb") as file:
                    (length,) = struct.unpack("<Q", file.read(8))
                    if length > _MAX_HEADER_BYTES:
                        raise ValueError(f"a header of {length} bytes")
                    header = json.loads(file.read(length))
                for tensor, entry in header.items():
                    if tensor != "__metadata__":
                        self._tensors[tensor] = (folder / name, 8 + length, entry)
            except (OSError, ValueError, struct.error, AttributeError) as error:
                raise Misconfigured(f"{self._source}: {name} is not a valid file of safetensors: {error}") from error

    def _files(self, folder: Path) -> list[str]:
        index = folder / "model.safetensors.index.json"
        if not index.is_file():
            return ["model.safetensors"]
        try:
            return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise Misconfigured(f"{self._source}: {index.name} is invalid: {error}") from error

    def tensor(self, name: str, *shape: int) -> Floats:
        """Return a tensor of this shape in float32."""
        if name not in self._tensors:
            raise Misconfigured(f"{self._source}: the weights lack {name}")
        path, start, entry = self._tensors[name]
        try:
            if tuple(entry["shape"]) != shape:
                raise Misconfigured(f"{self._source}: {name} has the shape {entry['shape']}, and not {list(shape)}")
            stored = _TYPES[entry["dtype"]]
            values = np.fromfile(path, stored, math.prod(shape), offset=start + entry["data_offsets"][0])
            if stored is np.uint16:  # bfloat16 is the upper half of float32.
                values = (values.astype(np.uint32) << 16).view(np.float32)
            return np.ascontiguousarray(values.reshape(shape), np.float32)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Misconfigured(f"{self._source}: {name} in {path.name} is invalid: {error}") from error


_TYPES = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}
_MAX_HEADER_BYTES = 100_000_000
"""The limit of safetensors itself."""
