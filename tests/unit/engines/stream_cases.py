"""The stream engines that can run here, each with its tolerance against the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lines import TEXTS
from workers.engines.stream import StreamEngine
from workers.engines.stream_checkpoint import read_config
from workers.engines.stream_onnx import OnnxStreamEngine
from workers.engines.stream_transformers import TransformersStreamEngine
from workers.engines.stream_vllm import VllmStreamEngine
from workers.engines.stream_vllm_arguments import BLOCK_TOKENS_ON_A_CPU, session_blocks
from workers.guard.stream_convert import convert_stream

MAX_SESSIONS = 8
MAX_TOKENS = 700


@dataclass(frozen=True)
class StreamCase:
    """One engine under test."""

    name: str
    package: str | None
    """The package with its own environment that the engine needs."""
    make: Callable[[Path], StreamEngine]
    """Make an engine of `MAX_SESSIONS` sessions of `MAX_TOKENS` tokens, on a checkpoint in Hugging Face's format."""
    tolerance: float
    """The largest difference of a probability from the reference, in float64."""
    category_tolerance: float | None = None
    """The same of a category's probability, if it is another one."""
    leaks_nan: bool = False
    """Whether what is not a number may reach other sessions by the cache: see `Case.leaks_nan`."""


def onnx_engine(folder: Path, weights: str = "float32", cache_texts: Sequence[str] = ()) -> OnnxStreamEngine:
    """Convert a checkpoint, once, and make an engine on it. With a window, there is no cache in int8."""
    texts = cache_texts if read_config(folder).window is None else ()
    target = folder / f"{weights}-{bool(texts)}"
    if not target.exists():
        convert_stream(folder, target, weights, texts)
    return OnnxStreamEngine(target, max_sessions=MAX_SESSIONS, max_tokens=MAX_TOKENS, threads=1)


def vllm_engine(folder: Path) -> VllmStreamEngine:
    """Make an engine whose cache has exactly the blocks that the sessions may need, those of vLLM and its watch too."""
    blocks = MAX_SESSIONS * session_blocks(MAX_TOKENS, read_config(folder).window, BLOCK_TOKENS_ON_A_CPU) + 2
    return VllmStreamEngine(
        folder,
        {"dtype": "float32", "num_gpu_blocks_override": blocks},
        max_sessions=MAX_SESSIONS,
        max_tokens=MAX_TOKENS,
    )


CASES = (
    StreamCase("onnxruntime", None, onnx_engine, tolerance=1e-4),
    StreamCase("onnxruntime-int8", None, lambda folder: onnx_engine(folder, "int8", TEXTS), tolerance=0.25),
    StreamCase(
        "transformers",
        "transformers",
        lambda folder: TransformersStreamEngine(folder, max_sessions=MAX_SESSIONS, max_tokens=MAX_TOKENS, threads=1),
        tolerance=1e-4,
    ),
    StreamCase("vllm", "vllm", vllm_engine, tolerance=1e-4),
)

PARAMETERS = [
    pytest.param(case, id=case.name, marks=[pytest.mark.needs(case.package)] if case.package else []) for case in CASES
]
