"""What the vLLM engine does around vLLM, without it: settings and plugins."""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from workers.engines import vllm_load
from workers.engines.vllm import VllmEngine
from workers.errors import Misconfigured

FOLDER = Path("checkpoint")


@pytest.mark.parametrize("name", ["model", "revision", "tokenizer", "skip_tokenizer_init", "logprobs_mode"])
def test_an_argument_that_would_break_the_engine_is_refused(name: str) -> None:
    with pytest.raises(Misconfigured, match=rf"^guard\.vllm: '{name}' cannot be set: "):
        VllmEngine(FOLDER, {name: "raw_logits"})


@pytest.mark.parametrize("longest", [100, "4k", -1, None])
def test_a_length_shorter_than_the_longest_prompt_is_refused(longest: Any) -> None:
    with pytest.raises(Misconfigured, match=r"^guard\.vllm: max_model_len is "):
        VllmEngine(FOLDER, {"max_model_len": longest}, context_tokens=2048)
    VllmEngine(FOLDER, {"max_model_len": 4096}, context_tokens=2048)


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, None), ("", ",guardline"), ("mine", "mine,guardline"), ("guardline,mine", "guardline,mine")],
)
def test_the_plugin_is_loaded_with_any_allowed_plugins(
    monkeypatch: pytest.MonkeyPatch, before: str | None, after: str | None
) -> None:
    # An empty list allows none: vLLM's processes would outlive a worker that is killed.
    if before is None:
        monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    else:
        monkeypatch.setenv("VLLM_PLUGINS", before)
    vllm_load._allow_plugin()
    assert os.environ.get("VLLM_PLUGINS") == after


def test_without_the_plugin_the_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = EntryPoint("other", "other:register", "vllm.general_plugins")
    monkeypatch.setattr(vllm_load, "entry_points", lambda *, group: (other,))
    with pytest.raises(Misconfigured, match="needs guardline installed"):
        vllm_load._allow_plugin()
