"""vLLM's engine arguments for streams, and how many sessions its cache of keys and values has room for.

An idle session keeps its blocks, and vLLM waits without an end for blocks that no session frees. So the engine reserves
the most blocks that a session can need.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workers.engines.stream_vllm_rows import COLUMNS, ROWS
from workers.errors import Misconfigured

BLOCK_TOKENS_ON_A_CPU = 32
"""vLLM's default on a CPU is 128, which is much for a session with a window."""

WATCHERS = 1
"""The sessions of the engine itself: see `stream_vllm_core.Core.watch`."""

ALLOWED = frozenset(
    {
        "attention_backend",
        "attention_config",
        "block_size",
        "cpu_offload_gb",
        "disable_custom_all_reduce",
        "distributed_executor_backend",
        "dtype",
        "enforce_eager",
        "gpu_memory_utilization",
        "kv_cache_dtype",
        "kv_cache_memory_bytes",
        "load_format",
        "max_num_batched_tokens",
        "max_parallel_loading_workers",
        "num_gpu_blocks_override",
        "numa_bind",
        "quantization",
        "safetensors_load_strategy",
        "tensor_parallel_size",
    }
)
"""The arguments that change no guarantee. vLLM has three hundred; many of them change how it plans its steps."""

REFUSED = {
    "model": "set streams.model",
    "max_model_len": "set streams.max_tokens",
    "max_num_seqs": "set streams.max_sessions",
    "tokenizer": "guardline sends token ids",
    "trust_remote_code": "guardline has its own class for the model, and runs no code of a checkpoint",
    "logprobs_mode": "guardline needs the unchanged outputs of the model's heads",
    "enable_prefix_caching": "a token whose keys and values come from a cache would not be judged",
    "enable_chunked_prefill": "a chunk must run in one step",
    "speculative_config": "no text is generated",
    "pipeline_parallel_size": "tensor_parallel_size divides a model over several cards",
    "data_parallel_size": "all sessions are at one engine; start several workers instead",
    "disable_sliding_window": "the model needs the window that it was trained with",
    "compilation_config": "guardline chooses the graphs; enforce_eager: false turns them on",
}
"""Why an argument that somebody may try is refused."""


def check_arguments(given: Mapping[str, Any], max_sessions: int) -> None:
    """Refuse arguments that may break a guarantee.

    Raises:
        Misconfigured: there is one; the sentence says why.
    """
    for name in given:
        if name not in ALLOWED:
            reason = REFUSED.get(name, f"it may break a session; these can be: {', '.join(sorted(ALLOWED))}")
            raise Misconfigured(f"streams.vllm: {name!r} cannot be set: {reason}")
    least = step_tokens(max_sessions)
    budget = given.get("max_num_batched_tokens", least)
    if not isinstance(budget, int) or budget < least:
        raise Misconfigured(
            f"streams.vllm: max_num_batched_tokens is {budget!r}, but must be a number of at least {least} for "
            f"{max_sessions} sessions (streams.max_sessions): a chunk must run in one step"
        )


def step_tokens(max_sessions: int) -> int:
    """Return the tokens of a step in which every session has a whole chunk."""
    return (max_sessions + WATCHERS) * ROWS


def arguments(
    given: Mapping[str, Any], *, max_sessions: int, max_tokens: int, positions: int, on_a_cpu: bool
) -> dict[str, Any]:
    """Complete the arguments of the settings, which `check_arguments` has checked.

    `positions` is the checkpoint's `max_position_embeddings`.
    """
    made = {
        # Compiled, vLLM 0.32 stopped for a minute at 8,192 tokens of context; eagerly it does not.
        "enforce_eager": True,
        "disable_log_stats": True,
        "max_num_batched_tokens": step_tokens(max_sessions),
        **({"block_size": BLOCK_TOKENS_ON_A_CPU, "distributed_executor_backend": "uni"} if on_a_cpu else {}),
        **given,
        # vLLM ends, with all sessions, when a session reaches its max_model_len.
        "max_model_len": max_tokens + 1,
        "hf_overrides": {"max_position_embeddings": max(positions, max_tokens + 1)},
        "max_num_seqs": max_sessions + WATCHERS,
        "enable_prefix_caching": False,
        "skip_tokenizer_init": True,
        "logprobs_mode": "raw_logits",
        "max_logprobs": COLUMNS,
    }
    if not made["enforce_eager"]:
        # A full graph would repeat the borders of the sessions that it was captured with.
        made["compilation_config"] = {"cudagraph_mode": "PIECEWISE"}
    return made


def session_blocks(max_tokens: int, window: int | None, block_tokens: int) -> int:
    """Return the most blocks that a session holds at a time.

    With a window, vLLM frees the blocks before it, at the beginning of the next chunk. The window may begin and the
    chunk may end in the middle of a block.
    """
    whole = -(-max_tokens // block_tokens)
    if window is None:
        return whole
    return min(whole, -(-(window - 1 + ROWS) // block_tokens) + 1)


def check_room(max_sessions: int, max_tokens: int, window: int | None, *, blocks: int, block_tokens: int) -> None:
    """Check that every session has room for all its tokens in a cache of `blocks` blocks.

    Raises:
        Misconfigured: they do not fit; the sentence says how many do.
    """
    each = session_blocks(max_tokens, window, block_tokens)
    # vLLM keeps one block for itself; the engine's own session has one token.
    fits = (blocks - 1 - WATCHERS) // each
    if fits < max_sessions:
        raise Misconfigured(
            f"streams.max_sessions: {max_sessions} sessions of up to {max_tokens} tokens (streams.max_tokens) need "
            f"{each} blocks of {block_tokens} tokens each, and vLLM's cache has {blocks} blocks: room for {fits}. "
            "Lower one of the two, or give vLLM more memory: gpu_memory_utilization or kv_cache_memory_bytes in "
            "streams.vllm, on a CPU the variable VLLM_CPU_KVCACHE_SPACE"
        )
