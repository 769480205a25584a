"""What vLLM is told on a GPU and on a CPU."""

from __future__ import annotations

from itertools import pairwise

import pytest

from workers.engines.vllm_platform import chosen, graph_sizes


@pytest.mark.parametrize("largest", [16, 100, 2_048, 16_384])
def test_graphs_are_captured_up_to_a_whole_step_and_waste_at_most_a_quarter(largest: int) -> None:
    sizes = graph_sizes(largest)
    assert sizes[-1] == largest
    assert sizes == sorted(set(sizes))
    assert all(after <= before * 1.25 for before, after in pairwise(sizes) if before >= 8)


def test_a_gpu_gets_large_steps_and_graphs_for_all_of_them() -> None:
    made = chosen({}, is_cpu=False)
    assert made["max_num_batched_tokens"] > 2_048, "AsyncLLM's own choice leaves a GPU idle"
    assert made["max_num_seqs"] > 64
    assert made["compilation_config"]["cudagraph_capture_sizes"][-1] == made["max_num_batched_tokens"]


def test_what_the_settings_say_wins() -> None:
    made = chosen({"max_num_batched_tokens": 4_096, "max_num_seqs": 7}, is_cpu=False)
    assert made["max_num_seqs"] == 7
    assert made["compilation_config"]["cudagraph_capture_sizes"][-1] == 4_096
    own = {"compilation_config": {"mode": 0}}
    assert chosen(own, is_cpu=False)["compilation_config"] == {"mode": 0}
    assert chosen({"block_size": 16}, is_cpu=True)["block_size"] == 16


def test_a_cpu_gets_nothing_that_is_meant_for_a_gpu() -> None:
    assert chosen({}, is_cpu=True) == {"max_num_seqs": 64, "block_size": 32}
