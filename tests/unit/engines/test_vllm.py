"""What the vLLM engine does around vLLM, without it: settings, plugins, and requests that vLLM gives up."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.engines.replay import until
from workers.engines import vllm
from workers.engines.vllm import DIED, VllmEngine
from workers.errors import Misconfigured, Retriable

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


class Llm:
    """vLLM's interface, noting what is asked and given up. It answers with these reasons in turn, and then never."""

    def __init__(self, *reasons: str, errored: bool = False) -> None:
        self._reasons = iter(reasons)
        self.errored = errored
        self.asked: list[str] = []
        self.aborted: list[str] = []

    async def add_request(self, request_id: str, prompt: Any, parameters: Any) -> Answer:
        """Take a request."""
        if prompt["prompt_token_ids"] == REFUSED:
            raise ValueError("too long")
        self.asked.append(f"{request_id}-internal")
        return Answer(self.asked[-1], next(self._reasons, None))

    async def abort(self, request_ids: list[str], internal: bool = False) -> None:
        """Give requests up."""
        assert internal
        self.aborted += request_ids


@dataclass
class Answer:
    """What vLLM puts a request's answer into."""

    request_id: str
    reason: str | None

    async def get(self) -> Any:
        """Wait for the answer."""
        if self.reason is None:
            await asyncio.Event().wait()
        output = SimpleNamespace(finish_reason=self.reason, token_ids=[], logprobs=[])
        return SimpleNamespace(finished=True, outputs=[output])


REFUSED = [7]


def engine_on(llm: Llm) -> VllmEngine:
    engine = VllmEngine(FOLDER, {})
    engine._llm = llm
    return engine


@pytest.mark.parametrize("reason", ["abort", "error"])
async def test_a_request_that_vllm_gives_up_may_be_asked_again(reason: str) -> None:
    # Taken for an answer it would be an empty completion, or an IndexError that ends the worker.
    llm = Llm("length", reason)
    with pytest.raises(ExceptionGroup) as raised:
        await engine_on(llm)._together(llm, [[1], [2], [3]], None)
    (error,) = raised.value.exceptions
    assert isinstance(error, Retriable)
    assert reason in str(error)


async def test_who_waits_for_an_engine_process_that_died_is_told() -> None:
    llm = Llm(errored=True)
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(engine_on(llm)._together(llm, [[1], [2]], None), 10)
    assert [str(error) for error in raised.value.exceptions] == [DIED]


async def test_a_call_that_is_cancelled_leaves_nothing_to_do_in_the_engine() -> None:
    llm = Llm("length")
    call = asyncio.create_task(engine_on(llm)._together(llm, [[1], [2], [3]], None))
    await until(lambda: len(llm.asked) == 3)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert llm.aborted == llm.asked


async def test_a_prompt_that_vllm_refuses_leaves_nothing_of_its_neighbours_to_do() -> None:
    llm = Llm()
    with pytest.raises(ExceptionGroup):
        await engine_on(llm)._together(llm, [[1], REFUSED, [3]], None)
    assert llm.aborted == llm.asked
    assert len(llm.asked) == 1
