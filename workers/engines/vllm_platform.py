"""What vLLM is told on each platform, where the settings say nothing."""

from __future__ import annotations

import os
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


def chosen(arguments: dict[str, Any], *, is_cpu: bool) -> dict[str, Any]:
    """Add to the engine arguments what this platform needs; those that are set win."""
    if is_cpu:
        return {"max_num_seqs": SEQUENCES_ON_A_CPU, "block_size": BLOCK_TOKENS_ON_A_CPU, **arguments}
    made = {"max_num_batched_tokens": STEP_TOKENS, "max_num_seqs": SEQUENCES, **arguments}
    return {"compilation_config": {"cudagraph_capture_sizes": graph_sizes(made["max_num_batched_tokens"])}, **made}


def use_all_cores() -> None:
    """Let vLLM compute on all cores of a small CPU, unless the environment says otherwise."""
    if len(os.sched_getaffinity(0)) <= FEW_CORES:
        for name, value in ON_ALL_CORES.items():
            os.environ.setdefault(name, value)
