"""What vLLM is told on a GPU and on a CPU."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest

from workers.engines.vllm_platform import Platform, chosen, graph_sizes, platform_of


@pytest.mark.parametrize("largest", [16, 100, 2_048, 16_384])
def test_graphs_are_captured_up_to_a_whole_step_and_waste_at_most_a_quarter(largest: int) -> None:
    sizes = graph_sizes(largest)
    assert sizes[-1] == largest
    assert sizes == sorted(set(sizes))
    assert all(after <= before * 1.25 for before, after in pairwise(sizes) if before >= 8)


@pytest.mark.parametrize("platform", [Platform.FLASH, Platform.OTHER])
def test_a_gpu_gets_large_steps_and_graphs_for_all_of_them(platform: Platform) -> None:
    made = chosen({}, platform, 81)
    assert made["max_num_batched_tokens"] > 2_048, "AsyncLLM's own choice leaves a GPU idle"
    assert made["max_num_seqs"] > 64
    assert made["compilation_config"]["cudagraph_capture_sizes"][-1] == made["max_num_batched_tokens"]


@pytest.mark.parametrize("shared", range(0, 600, 7))
def test_a_block_of_the_prefix_cache_is_never_longer_than_what_all_prompts_share(shared: int) -> None:
    """A longer one would be filled differently by each text, and nothing would ever be found in the cache."""
    block = chosen({}, Platform.FLASH, shared).get("block_size", 0)
    assert block % 16 == 0
    assert max(0, min(shared, 256) - 15) <= block <= shared


def test_only_flash_attention_gets_whole_graphs_and_blocks_of_another_size() -> None:
    """Elsewhere vLLM would fall back to graphs for decoding alone, of which the guard does none."""
    assert chosen({}, Platform.FLASH, 81)["compilation_config"]["cudagraph_mode"] == "FULL"
    other = chosen({}, Platform.OTHER, 81)
    assert other.keys().isdisjoint({"block_size", "attention_config"})
    assert "cudagraph_mode" not in other["compilation_config"]


@pytest.mark.parametrize(
    ("capability", "platform"), [((9, 0), Platform.FLASH), ((8, 6), Platform.FLASH), ((10, 0), Platform.OTHER)]
)
def test_the_platform_is_told_by_the_compute_capability(capability: tuple[int, int], platform: Platform) -> None:
    assert platform_of(Card(capability)) is platform


class Card:
    """What vLLM says of a card."""

    def __init__(self, capability: tuple[int, int]) -> None:
        self._capability = SimpleNamespace(major=capability[0], minor=capability[1])

    def is_cpu(self) -> bool:
        return False

    def is_cuda(self) -> bool:
        return True

    def get_device_capability(self) -> SimpleNamespace:
        return self._capability


def test_the_settings_override_the_platform() -> None:
    made = chosen({"max_num_batched_tokens": 4_096, "max_num_seqs": 7, "block_size": 16}, Platform.FLASH, 81)
    assert (made["max_num_seqs"], made["block_size"]) == (7, 16)
    assert made["compilation_config"]["cudagraph_capture_sizes"][-1] == 4_096
    own = {"compilation_config": {"mode": 0}}
    assert chosen(own, Platform.FLASH, 81)["compilation_config"] == {"mode": 0}
    assert chosen({"block_size": 16}, Platform.CPU, 81)["block_size"] == 16


def test_a_cpu_gets_no_settings_of_a_gpu() -> None:
    assert chosen({}, Platform.CPU, 81) == {"max_num_seqs": 64, "block_size": 32}
