"""The engine arguments for vLLM on each platform, where the settings do not set them."""

from __future__ import annotations

import os
from enum import Enum
from typing import Any

SEQUENCES_ON_A_CPU = 64
"""More prompts at a time add latency and no throughput."""

BLOCK_TOKENS_ON_A_CPU = 32
"""With vLLM's 128, the second prompt of a short message finds nothing of the first one in the prefix cache."""

ON_ALL_CORES = {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "OMP_WAIT_POLICY": "PASSIVE"}
"""On a CPU vLLM reserves one core for its scheduler's process, which needs only a small part of it. Waiting threads
must not use that part, so they wait passively. On two cores this gives 1.5 times the messages/s with guard-nano, and a
prefill of the 0.6B model in 0.6 of the time (docs/performance.md)."""

FEW_CORES = 4
"""With more cores, the reserved one matters little, and the effect of the others on the scheduler was not measured."""

STEP_TOKENS = 16_384
"""Tokens of one step on a GPU. The default of `AsyncLLM`, 2,048, left an H100 nearly idle."""

SEQUENCES = 512
"""Prompts of one step on a GPU: with short texts, `STEP_TOKENS` fills a step before this number does."""

SMALLEST_GRAPH = 8

WITHOUT_SPLITS = {"flash_attn_max_num_splits_for_cuda_graph": 1}
"""Texts are short, so attention over one text needs no splits. With vLLM's 32 splits, the graphs of a whole step
reserved memory for 32 partial results: 9-13 GiB at 0.6B, and 8B did not fit. Without splits they take 1.5-1.7 GiB, at
the same speed."""


BLOCK_UNIT = 16
"""FlashAttention accepts any multiple of this as the block size."""

LARGEST_BLOCK = 256
"""A longer shared prefix takes several blocks of this size. Larger blocks would be mostly empty."""


class Platform(Enum):
    """The kinds of platforms with different arguments."""

    CPU = "cpu"
    FLASH = "flash"
    """A card on which vLLM runs FlashAttention (compute capability 8 and 9), with blocks of any size."""
    OTHER = "other"


def platform_of(current: Any) -> Platform:
    """Classify vLLM's own platform object, `vllm.platforms.current_platform`."""
    if current.is_cpu():
        return Platform.CPU
    capability = current.get_device_capability() if current.is_cuda() else None
    return Platform.FLASH if capability is not None and capability.major in (8, 9) else Platform.OTHER


def graph_sizes(largest: int) -> list[int]:
    """Return the step sizes, in tokens, for which CUDA graphs are captured: four for each doubling, up to the largest.

    vLLM pads a step to the next size, a tenth of its work on average. vLLM's own list ends at 512 tokens. In larger
    steps each piece of the model was launched separately, which took two thirds of the engine's time on an H100.
    """
    sizes = [1, 2, 4]
    size = SMALLEST_GRAPH
    while size < largest:
        sizes += [step for step in range(size, 2 * size, size // 4) if step < largest]
        size *= 2
    return [*sizes, largest]


def block_tokens(shared_tokens: int) -> int:
    """Return the block size of the prefix cache: the shared prefix in one block, if it fits.

    With vLLM's blocks of 16 tokens a message has ten blocks. vLLM hashes, looks up and assigns each in Python, which
    limits one engine: one block for the prefix gave 3,527 messages/s instead of 3,030 (0.6B, H200, medians of four).
    """
    return min(shared_tokens, LARGEST_BLOCK) // BLOCK_UNIT * BLOCK_UNIT


def chosen(arguments: dict[str, Any], platform: Platform, shared_tokens: int) -> dict[str, Any]:
    """Add this platform's defaults to the engine arguments, which override them.

    `shared_tokens`: the number of equal ids with which the prompts begin.
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
    """Let vLLM compute on all cores of a small CPU, unless the environment sets something else."""
    if len(os.sched_getaffinity(0)) <= FEW_CORES:
        for name, value in ON_ALL_CORES.items():
            os.environ.setdefault(name, value)
