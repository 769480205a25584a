"""What the vLLM engine does around vLLM, without it: settings, plugins, and requests that vLLM gives up."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from workers.engines import vllm
from workers.engines.vllm import DIED, VllmEngine
from workers.errors import Misconfigured, Unavailable

FOLDER = Path("checkpoint")


@pytest.mark.parametrize("name", ["model", "revision", "tokenizer", "skip_tokenizer_init", "logprobs_mode"])
def test_an_argument_that_would_break_the_engine_is_refused(name: str) -> None:
    with pytest.raises(Misconfigured, match=rf"^guard\.vllm: '{name}' cannot be set: "):
        VllmEngine(FOLDER, {name: "raw_logits"})


@pytest.mark.parametrize("longest", [100, "4k", -1, None])
def test_a_length_that_long_prompts_might_not_fit_is_refused(longest: Any) -> None:
    with pytest.raises(Misconfigured, match=r"^guard\.vllm: max_model_len is "):
        VllmEngine(FOLDER, {"max_model_len": longest}, context_tokens=2048)
    VllmEngine(FOLDER, {"max_model_len": 4096}, context_tokens=2048)


@pytest.mark.parametrize(
    ("before", "after"),
    [(None, None), ("", ",guardline"), ("mine", "mine,guardline"), ("guardline,mine", "guardline,mine")],
)
def test_the_plugin_is_loaded_whatever_plugins_are_allowed(
    monkeypatch: pytest.MonkeyPatch, before: str | None, after: str | None
) -> None:
    # An empty list allows none: vLLM's processes would outlive a worker that is killed.
    if before is None:
        monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    else:
        monkeypatch.setenv("VLLM_PLUGINS", before)
    vllm._allow_plugin()
    assert os.environ.get("VLLM_PLUGINS") == after


def test_without_the_plugin_the_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = EntryPoint("other", "other:register", "vllm.general_plugins")
    monkeypatch.setattr(vllm, "entry_points", lambda *, group: (other,))
    with pytest.raises(Misconfigured, match="needs guardline installed"):
        vllm._allow_plugin()


class GivesUp:
    """vLLM's interface, ending every request with a reason and without an answer."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def generate(self, prompt: Any, parameters: Any, request_id: str) -> AsyncIterator[Any]:
        """End the request."""
        output = SimpleNamespace(finish_reason=self._reason, token_ids=[], logprobs=[])
        yield SimpleNamespace(finished=True, outputs=[output])


@pytest.mark.parametrize("reason", ["abort", "error"])
async def test_a_request_that_vllm_gives_up_may_be_asked_again(reason: str) -> None:
    # Taken for an answer it would be an empty completion, or an IndexError that ends the worker.
    with pytest.raises(Unavailable, match=reason):
        await VllmEngine(FOLDER, {})._run(GivesUp(reason), [1, 2], None)


class Deaf(GivesUp):
    """vLLM's interface with an engine process that is dead, and requests that nobody answers."""

    errored = True

    async def generate(self, prompt: Any, parameters: Any, request_id: str) -> AsyncIterator[Any]:
        """Never answer."""
        await asyncio.Event().wait()
        yield


async def test_who_waits_for_an_engine_process_that_died_is_told() -> None:
    engine = VllmEngine(FOLDER, {})
    engine._llm = Deaf("")
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(engine._together(engine._llm, [[1], [2]], None), 10)
    assert [str(error) for error in raised.value.exceptions] == [DIED]
