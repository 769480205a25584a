"""Writes a checkpoint of the kind of Qwen3Guard-Stream as an ONNX graph, for onnxruntime on a CPU.

torch's exporters append the keys and values of a token to a copy of the cache: behind 4,096 tokens, a token took 26
times as long as behind 64. Here `GroupQueryAttention` writes them into the engine's own memory.

The tokens of all sessions of a step are one row, [N]. Only the attention sees [sessions, longest chunk], so unequal
chunks are not padded anywhere else.

int8 stores the weights in blocks, and quantises what they are multiplied with row by row (`MatMulNBits`). So the
probabilities of a session depend neither on its chunks nor on the other sessions of a step. `quantize_dynamic` of
onnxruntime takes one scale for all rows of a step: there the division into chunks changed a probability by 0.035.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workers.engines.stream import Floats
from workers.engines.stream_checkpoint import HEAD_WIDTHS, HEADS, PREFIXES, StreamConfig, Weights
from workers.engines.stream_labels import WIDTH
from workers.errors import Misconfigured

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto, ValueInfoProto

ONNXRUNTIME = "com.microsoft"
OPSETS = {"": 20, ONNXRUNTIME: 1}
IR_VERSION = 10
"""Older than what the newest `onnx` writes: onnxruntime reads it longer."""

BLOCKS = (128, 64, 32, 16)
"""How many weights share a scale: the largest number that divides the width. With 128, chunks of one token and of 64
gave the same probabilities but for the rounding of float32; with 64, they differed by 0.001."""

MAX_FILE_BYTES = 1_500_000_000
"""Protocol buffers hold at most 2 GiB. Larger weights are in a file of their own."""

CACHE_KINDS = ("key", "value")

Scales: TypeAlias = Mapping[tuple[int, str], float]
"""For each layer and kind of a cache in int8: what 1 stands for."""


def cache_names(layer: int, kind: str) -> tuple[str, str]:
    """Return the names of the input and the output of a layer's cache: the same memory is bound to both."""
    return f"{kind}s_before.{layer}", f"{kind}s_after.{layer}"


class GraphWriter:
    """Collects the nodes of one graph."""

    def __init__(self, config: StreamConfig, weights: Weights, *, is_int8: bool, scales: Scales | None = None) -> None:
        from onnx import helper, numpy_helper

        self._helper = helper
        self._to_tensor = numpy_helper.from_array
        self._config = config
        self._weights = weights
        self._is_int8 = is_int8
        self._scales = scales
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self._bytes = 0

    def write(self, path: Path) -> None:
        """Write the graph, and `path` + `.data` if the weights are large.

        Raises:
            Misconfigured: the weights do not fit to `config.json`.
            OSError: the files cannot be written.
        """
        import onnx

        config = self._config
        hidden = self._embedded()
        for name, values in self._shapes().items():
            self._constant(name, np.array(values, np.int64))
        self._constant("ones", np.ones(config.head_width, np.float32))
        for layer in range(config.layers):
            hidden = self._layer(layer, hidden)
        self._heads(self._norm("norm", hidden, self._weights.tensor("model.norm.weight", config.hidden)))
        inputs, outputs = self._inputs()
        graph = self._helper.make_graph(self._nodes, "stream", inputs, outputs, self._constants)
        model = self._helper.make_model(
            graph,
            opset_imports=[self._helper.make_opsetid(domain, version) for domain, version in OPSETS.items()],
            ir_version=IR_VERSION,
            producer_name="guardline",
        )
        if self._bytes > MAX_FILE_BYTES:
            onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")
        else:
            onnx.save(model, path)

    def _shapes(self) -> dict[str, list[int]]:
        config = self._config
        heads = config.heads + config.kv_heads
        return {
            "split": [heads * config.head_width, config.kv_heads * config.head_width],
            "by_head": [0, heads, config.head_width],
            "joined": [0, heads * config.head_width],
            "flat": [-1, config.heads * config.head_width],
        }

    def _inputs(self) -> tuple[list[ValueInfoProto], list[ValueInfoProto]]:
        from onnx import TensorProto

        config = self._config
        value = self._helper.make_tensor_value_info
        inputs = [
            value("ids", TensorProto.INT64, ["tokens"]),
            value("places", TensorProto.INT64, ["sessions", "longest"]),  # For each place of the attention: its token.
            value("origins", TensorProto.INT64, ["tokens"]),  # For each token: its place among sessions x longest.
            value("last_positions", TensorProto.INT32, ["sessions"]),
            value("total", TensorProto.INT32, []),  # At least the longest session's tokens.
            value("counts", TensorProto.INT32, ["sessions"]),  # New tokens; 0 for an idle session.
            value("cos", TensorProto.FLOAT, ["positions", config.head_width // 2]),
            value("sin", TensorProto.FLOAT, ["positions", config.head_width // 2]),
        ]
        cached = TensorProto.FLOAT if self._scales is None else TensorProto.INT8
        outputs = [value("outputs", TensorProto.FLOAT, ["tokens", WIDTH])]
        shape: list[str | int | None] = ["sessions", config.kv_heads, "capacity", config.head_width]
        for layer in range(config.layers):
            for kind in CACHE_KINDS:
                before, after = cache_names(layer, kind)
                inputs.append(value(before, cached, shape))
                outputs.append(value(after, cached, shape))
        return inputs, outputs

    def _layer(self, layer: int, hidden: str) -> str:
        config = self._config
        prefix = f"model.layers.{layer}."
        queries, keys = config.heads * config.head_width, config.kv_heads * config.head_width
        projections = [
            self._weights.tensor(f"{prefix}self_attn.{kind}_proj.weight", width, config.hidden)
            for kind, width in (("q", queries), ("k", keys), ("v", keys))
        ]
        weight = self._weights.tensor(f"{prefix}input_layernorm.weight", config.hidden)
        mixed = self._product(
            f"qkv.{layer}", self._norm(f"before.{layer}", hidden, weight), np.concatenate(projections)
        )
        attended = self._attention(layer, mixed)
        weight = self._weights.tensor(f"{prefix}self_attn.o_proj.weight", config.hidden, queries)
        hidden = self._node("Add", [hidden, self._product(f"o.{layer}", attended, weight)], f"attended.{layer}")
        weight = self._weights.tensor(f"{prefix}post_attention_layernorm.weight", config.hidden)
        normed = self._norm(f"behind.{layer}", hidden, weight)
        gate, up = [
            self._product(
                f"{kind}.{layer}",
                normed,
                self._weights.tensor(f"{prefix}mlp.{kind}_proj.weight", config.mlp, config.hidden),
            )
            for kind in ("gate", "up")
        ]
        sigmoid = self._node("Sigmoid", [gate], f"sigmoid.{layer}")
        silu = self._node("Mul", [gate, sigmoid], f"silu.{layer}")
        gated = self._node("Mul", [silu, up], f"gated.{layer}")
        weight = self._weights.tensor(f"{prefix}mlp.down_proj.weight", config.hidden, config.mlp)
        return self._node("Add", [hidden, self._product(f"down.{layer}", gated, weight)], f"hidden.{layer}")

    def _attention(self, layer: int, mixed: str) -> str:
        """Norm the heads of queries and keys, give each session its tokens, attend, and make one row of all tokens."""
        config = self._config
        weights = [
            np.tile(
                self._weights.tensor(f"model.layers.{layer}.self_attn.{kind}_norm.weight", config.head_width),
                (count, 1),
            )
            for kind, count in (("q", config.heads), ("k", config.kv_heads))
        ]
        self._node("Split", [mixed, "split"], f"qk.{layer}", f"v.{layer}", axis=-1)
        heads = self._node("Reshape", [f"qk.{layer}", "by_head"], f"qk_heads.{layer}")
        normed = self._node(
            "SimplifiedLayerNormalization",
            [heads, "ones"],
            f"qk_normed.{layer}",
            axis=-1,
            epsilon=config.epsilon,
            stash_type=1,
        )
        scaled = self._node(
            "Mul", [normed, self._constant(f"qk_norm.{layer}", np.concatenate(weights))], f"qk_scaled.{layer}"
        )
        joined = self._node("Reshape", [scaled, "joined"], f"qk_joined.{layer}")
        rows = self._node("Concat", [joined, f"v.{layer}"], f"qkv_normed.{layer}", axis=-1)
        placed = self._node("Gather", [rows, "places"], f"qkv_placed.{layer}", axis=0)
        (keys, keys_after), (values, values_after) = [cache_names(layer, kind) for kind in CACHE_KINDS]
        scales, options = self._cache_scales(layer)
        inputs = [placed, "", "", keys, values, "last_positions", "total", "cos", "sin"]
        inputs += ["", "", "", *scales, "", "", "counts"]
        window = {} if config.window is None else {"local_window_size": config.window, "sliding_window_cache": 1}
        self._node(
            "GroupQueryAttention",
            inputs,
            f"mixed.{layer}",
            keys_after,
            values_after,
            domain=ONNXRUNTIME,
            num_heads=config.heads,
            kv_num_heads=config.kv_heads,
            do_rotary=1,
            scale=config.head_width**-0.5,
            **window,
            **options,
        )
        flat = self._node("Reshape", [f"mixed.{layer}", "flat"], f"flat.{layer}")
        return self._node("Gather", [flat, "origins"], f"mixed_rows.{layer}", axis=0)

    def _cache_scales(self, layer: int) -> tuple[list[str], dict[str, Any]]:
        """Return the inputs and attributes that make the cache of a layer int8, or none."""
        if self._scales is None:
            return ["", ""], {}
        names = [
            self._constant(f"{kind}_scale.{layer}", np.array([self._scales[layer, kind]], np.float32))
            for kind in CACHE_KINDS
        ]
        return names, {"k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR", "kv_cache_bit_width": 8}

    def _heads(self, hidden: str) -> None:
        """Write the heads, always in float32: they are small, and decide."""
        config = self._config
        outputs = []
        for prefix, widths in zip(PREFIXES, HEAD_WIDTHS, strict=True):
            name = f"{prefix}risk_level_category"
            before = self._weights.tensor(f"{name}_pre.weight", config.inner, config.hidden)
            inner = self._product(f"{prefix}inner", hidden, before, is_exact=True)
            weight = self._weights.tensor(f"{name}_layernorm.weight", config.inner)
            inner = self._norm(f"{prefix}inner_norm", inner, weight)
            for head, width in zip(HEADS, widths, strict=True):
                weight = self._weights.tensor(f"{prefix}{head}_head.weight", width, config.inner)
                outputs.append(self._product(f"{prefix}{head}", inner, weight, is_exact=True))
        self._node("Concat", outputs, "outputs", axis=-1)

    def _embedded(self) -> str:
        config = self._config
        table = self._weights.tensor("model.embed_tokens.weight", config.vocabulary, config.hidden)
        if not self._is_int8:
            return self._node("Gather", [self._constant("embedding", table), "ids"], "embedded", axis=0)
        block, numbers, scales = quantised(table, "model.embed_tokens.weight")
        inputs = [
            self._constant("embedding", numbers.reshape(table.shape)),
            "ids",
            self._constant("embedding_scales", scales),
            self._constant("embedding_zeros", np.full(scales.shape, ZERO, np.uint8)),
        ]
        options = {"bits": 8, "block_size": block, "gather_axis": 0, "quantize_axis": 1}
        return self._node("GatherBlockQuantized", inputs, "embedded", domain=ONNXRUNTIME, **options)

    def _norm(self, name: str, x: str, weight: Floats) -> str:
        return self._node(
            "SimplifiedLayerNormalization",
            [x, self._constant(f"{name}.weight", weight)],
            f"{name}.normed",
            axis=-1,
            epsilon=self._config.epsilon,
            stash_type=1,
        )

    def _product(self, name: str, x: str, weight: Floats, *, is_exact: bool = False) -> str:
        """Multiply rows with a weight of the shape (outputs, inputs)."""
        if is_exact or not self._is_int8:
            return self._node("MatMul", [x, self._constant(f"{name}.weight", weight.T)], f"{name}.product")
        block, numbers, scales = quantised(weight, name)
        return self._node(
            "MatMulNBits",
            [x, self._constant(f"{name}.weight", numbers), self._constant(f"{name}.scales", scales)],
            f"{name}.product",
            domain=ONNXRUNTIME,
            N=weight.shape[0],
            K=weight.shape[1],
            bits=8,
            block_size=block,
            accuracy_level=4,  # The rows are quantised to int8. With 1, float32, it took 8 times as long.
        )

    def _node(self, kind: str, inputs: Sequence[str], *outputs: str, domain: str = "", **attributes: Any) -> str:
        self._nodes.append(self._helper.make_node(kind, inputs, outputs, name=outputs[0], domain=domain, **attributes))
        return outputs[0]

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        self._constants.append(self._to_tensor(np.ascontiguousarray(values), name))
        self._bytes += values.nbytes
        return name


ZERO = 128
"""The number that stands for 0 in `MatMulNBits` without zero points."""


def quantised(weight: Floats, name: str) -> tuple[int, NDArray[np.uint8], Floats]:
    """Return the block size, the numbers of a weight (rows, blocks, block), and the scales (rows, blocks).

    Raises:
        Misconfigured: no block size divides the width.
    """
    rows, width = weight.shape
    block = next((size for size in BLOCKS if width % size == 0), None)
    if block is None:
        raise Misconfigured(f"{name} has rows of {width}, which is no multiple of {BLOCKS[-1]}: convert it to float32")
    numbers = np.empty((rows, width // block, block), np.uint8)
    scales = np.empty((rows, width // block), np.float32)
    step = max(1, 16_000_000 // width)  # At once, the table of a large vocabulary would take three times its memory.
    for start in range(0, rows, step):
        part = weight[start : start + step].reshape(-1, width // block, block)
        largest = np.abs(part).max(axis=-1)
        scales[start : start + step] = np.where(largest == 0, 1, largest) / 127
        quotients = part / scales[start : start + step, :, None]
        numbers[start : start + step] = np.nan_to_num(np.rint(quotients)) + ZERO
    return block, numbers, scales
