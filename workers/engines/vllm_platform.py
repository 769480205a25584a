"""What vLLM is told on each platform, where the settings say nothing."""

from __future__ import annotations

import os
from enum import Enum
from typing import Any

SEQUENCES_ON_A_CPU = 64
"""More prompts at a time add latency, and no throughput."""

BLOCK_TOKENS_ON_A_CPU = 32
"""With vLLM's 128 a shorter prompt finds nothing of itself in the prefix cache when its categories are asked for."""

ON_ALL_CORES = {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "OMP_WAIT_POLICY": "PASSIVE"}
"""On a CPU vLLM leaves one core to its scheduler's process, which needs a small part of it. Threads that wait for the
others must not take that part: hence passive. On two cores, half as much again of guard-nano's messages, and a prefill
of the 0.6B model in 0.6 of the time."""

FEW_CORES = 4
"""With more, the one that is left out counts for little, and what the others do to the scheduler was not measured."""

STEP_TOKENS = 16_384
"""Of one step on a GPU. `AsyncLLM` takes 2,048 unless it is told otherwise, which left an H100 nearly idle."""

SEQUENCES = 512
"""Of one step on a GPU: a step is full of short texts before this many are in it."""

SMALLEST_GRAPH = 8

WITHOUT_SPLITS = {"flash_attn_max_num_splits_for_cuda_graph": 1}
"""Texts are short, so attention over one need not be split. With vLLM's 32 the graphs of a whole step kept room for 32
partial results: 9-13 GiB at 0.6B, and 8B did not fit beside it; without splits 1.5-1.7 GiB, at the same pace."""


BLOCK_UNIT = 16
"""FlashAttention takes blocks of any multiple of this."""

LARGEST_BLOCK = 256
"""Of a longer beginning a block this large is shared several times; a larger one would hold mostly nothing."""


class Platform(Enum):
    """What decides on the choices."""

    CPU = "cpu"
    FLASH = "flash"
    """A card on which vLLM runs FlashAttention (compute capability 8 and 9), so that blocks may have any size."""
    OTHER = "other"


def platform_of(current: Any) -> Platform:
    """Tell the platform by vLLM's own word for it, `vllm.platforms.current_platform`."""
    if current.is_cpu():
        return Platform.CPU
    capability = current.get_device_capability() if current.is_cuda() else None
    return Platform.FLASH if capability is not None and capability.major in (8, 9) else Platform.OTHER


def graph_sizes(largest: int) -> list[int]:
    """Give the steps, in tokens, for which CUDA graphs are captured: four to every doubling, up to the largest.

    A step is filled up to the next one: a tenth of its work on average. vLLM's own list ends at 512 tokens, and in a
    larger step each piece of the model was launched by itself: two thirds of the engine's time on an H100.
    """
    sizes = [1, 2, 4]
    size = SMALLEST_GRAPH
    while size < largest:
        sizes += [step for step in range(size, 2 * size, size // 4) if step < largest]
        size *= 2
    return [*sizes, largest]


def block_tokens(shared_tokens: int) -> int:
    """Give the size of a block of the prefix cache: as much of the shared beginning as fits into one.

    vLLM's own blocks of 16 tokens are ten for a message, each hashed, looked up and handed out in Python, which bounds
    one engine: with one block for the beginning 3,527 messages/s instead of 3,030 (0.6B, H200, medians of four).
    """
    return min(shared_tokens, LARGEST_BLOCK) // BLOCK_UNIT * BLOCK_UNIT


def chosen(arguments: dict[str, Any], platform: Platform, shared_tokens: int) -> dict[str, Any]:
    """Add to the engine arguments what this platform needs; those that are set win.

    `shared_tokens`: with how many equal ids the prompts begin.
    """
    if platform is Platform.CPU:
        return {"max_num_seqs": SEQUENCES_ON_A_CPU, "block_size": BLOCK_TOKENS_ON_A_CPU, **arguments}
    made = {"max_num_batched_tokens": STEP_TOKENS, "max_num_seqs": SEQUENCES, **arguments}
    graphs: dict[str, Any] = {"cudagraph_capture_sizes": graph_sizes(made["max_num_batched_tokens"])}
    if platform is Platform.OTHER:
        return {"compilation_config": graphs, **made}
    if block := block_tokens(shared_tokens):
        made = {"block_size": block, **made}
    return {"compilation_config": {"cudagraph_mode": "FULL", **graphs}, "attention_config": WITHOUT_SPLITS, **made}


def use_all_cores() -> None:
    """Let vLLM compute on all cores of a small CPU, unless the environment says otherwise."""
    if len(os.sched_getaffinity(0)) <= FEW_CORES:
        for name, value in ON_ALL_CORES.items():
            os.environ.setdefault(name, value)
