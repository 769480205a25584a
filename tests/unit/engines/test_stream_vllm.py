"""The stream engine on vLLM, without vLLM: settings, room for sessions, and the rows of an answer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.checkpoints.stream import WINDOW, write_stream
from workers.engines.stream_vllm import VllmStreamEngine
from workers.engines.stream_vllm_arguments import (
    ALLOWED,
    REFUSED,
    arguments,
    check_arguments,
    check_room,
    session_blocks,
    step_tokens,
)
from workers.engines.stream_vllm_core import Core
from workers.engines.stream_vllm_rows import ANSWER_WIDTH, COLUMNS, COUNT, POSITION, PROMPT, ROWS, read_rows
from workers.errors import Fatal, Misconfigured, Unavailable
from workers.live.load import load_stream_engine
from workers.settings import Streams

BLOCK = 32


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_an_argument_that_would_break_a_session_is_refused_with_its_reason(name: str) -> None:
    assert name not in ALLOWED
    with pytest.raises(Misconfigured, match=rf"^streams\.vllm: '{name}' cannot be set: ") as refused:
        VllmStreamEngine(Path("checkpoint"), {name: 1}, max_sessions=4, max_tokens=100)
    assert REFUSED[name] in str(refused.value)


@pytest.mark.parametrize("name", ["watermark", "max_num_active_seqs", "no_such_argument"])
def test_an_argument_that_nobody_has_checked_is_refused(name: str) -> None:
    with pytest.raises(Misconfigured, match=rf"^streams\.vllm: '{name}' cannot be set: .*dtype, enforce_eager"):
        check_arguments({name: 1}, 4)


@pytest.mark.parametrize("budget", [5 * ROWS - 1, "4k", None])
def test_a_step_that_cannot_hold_a_chunk_of_each_session_is_refused(budget: Any) -> None:
    with pytest.raises(Misconfigured, match=r"max_num_batched_tokens .* at least 160 for 4 sessions"):
        check_arguments({"max_num_batched_tokens": budget}, 4)
    check_arguments({"max_num_batched_tokens": step_tokens(4)}, 4)


def test_vllm_always_has_a_slot_and_a_token_more_than_the_sessions_use() -> None:
    made = arguments({"dtype": "float32"}, max_sessions=4, max_tokens=100, positions=100, on_a_cpu=False)
    assert made["max_num_seqs"] == 5
    assert made["max_model_len"] == 101
    assert made["hf_overrides"] == {"max_position_embeddings": 101}
    assert made["enforce_eager"] is True
    assert "compilation_config" not in made


def test_graphs_are_only_of_pieces_without_the_borders_of_sessions() -> None:
    made = arguments({"enforce_eager": False}, max_sessions=4, max_tokens=100, positions=8192, on_a_cpu=False)
    assert made["compilation_config"] == {"cudagraph_mode": "PIECEWISE"}
    assert made["hf_overrides"] == {"max_position_embeddings": 8192}


@pytest.mark.parametrize("window", [None, 1, 31, 32, 33, 256])
@pytest.mark.parametrize("block", [16, 32])
def test_the_blocks_of_a_session_hold_its_window_and_chunk_at_each_position(window: int | None, block: int) -> None:
    most = 0
    for begin in range(700):
        first = 0 if window is None else max(0, begin - window + 1)
        most = max(most, -(-min(begin + ROWS, 700) // block) - first // block)
    assert session_blocks(700, window, block) == most


def test_the_blocks_of_a_session_with_a_window_do_not_grow() -> None:
    assert session_blocks(8192, WINDOW, BLOCK) == session_blocks(65_536, WINDOW, BLOCK) == 10
    assert session_blocks(8192, None, BLOCK) == 256


def test_more_sessions_than_the_cache_has_room_for_are_refused_with_the_number_that_fits() -> None:
    check_room(4, 100, None, blocks=4 * 4 + 2, block_tokens=BLOCK)
    with pytest.raises(Misconfigured, match=r"^streams\.max_sessions: 4 .* 4 blocks .* 17 blocks: room for 3"):
        check_room(4, 100, None, blocks=4 * 4 + 1, block_tokens=BLOCK)


def answer(**changes: float) -> Any:
    """Make vLLM's answer to a chunk of 3 tokens that ends at position 7: column c of row r is 100 r + c."""
    values = np.zeros(COLUMNS, np.float32)
    values[:COUNT] = [100 * row + column for row in range(ROWS) for column in range(ANSWER_WIDTH)]
    values[COUNT], values[POSITION] = changes.get("count", 3), changes.get("position", 6)
    values[PROMPT:] = range(1, 13)
    order = np.argsort(-values, kind="stable")
    order = np.concatenate([order[:1], order]).astype(np.int32)  # The sampled one is also among the others.
    return SimpleNamespace(logprob_token_ids=order[None], logprobs=values[order][None])


def test_the_rows_of_a_chunk_are_its_last_ones_in_order() -> None:
    rows = read_rows(answer(), 3, 7)
    assert rows.shape == (3, 23)
    assert rows[:, 0].tolist() == [2900, 3000, 3100]
    assert rows[:, 10].tolist() == [2910, 3010, 3110]
    assert rows[-1, 11:].tolist() == list(range(1, 13))


@pytest.mark.parametrize(
    "changes", [{"count": 2}, {"count": 4}, {"count": ROWS}, {"position": 5}, {"position": 7}, {"count": float("nan")}]
)
def test_an_answer_without_exactly_the_rows_of_the_chunk_is_never_taken(changes: dict[str, float]) -> None:
    with pytest.raises(Unavailable, match="did not return the rows of 3 tokens before position 7"):
        read_rows(answer(**changes), 3, 7)


def test_an_answer_with_other_columns_is_never_taken() -> None:
    other = answer()
    other.logprob_token_ids[0][-1] = other.logprob_token_ids[0][-2]
    with pytest.raises(Unavailable, match="other numbers"):
        read_rows(other, 3, 7)


def test_vllm_of_another_kind_does_not_get_the_model_class() -> None:
    code = (
        "import sys; from workers.engines.vllm_child import register_stream_model; register_stream_model(); "
        "assert not {'torch', 'vllm'} & set(sys.modules), 'imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class StoppedVllm:
    """vLLM's `AsyncLLM` with a small cache and without processes."""

    vllm_config = SimpleNamespace(cache_config=SimpleNamespace(num_gpu_blocks=9, block_size=BLOCK))
    engine_core = SimpleNamespace(resources=SimpleNamespace(engine_manager=None))
    is_shut_down = False

    def shutdown(self) -> None:
        """Note it."""
        self.is_shut_down = True


async def test_a_start_with_too_small_a_cache_is_refused_and_ends_vllm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = VllmStreamEngine(write_stream(tmp_path / "model"), {}, max_sessions=4, max_tokens=100)
    vllm = StoppedVllm()
    monkeypatch.setattr(engine, "_load", lambda: vllm)
    with pytest.raises(Misconfigured, match=r"streams\.max_sessions: 4 .* room for 1"):
        await engine.start()
    assert vllm.is_shut_down
    with pytest.raises(Fatal, match="not running"):
        await engine.open([1])


class DyingVllm(StoppedVllm):
    """vLLM's `AsyncLLM` with an engine process that dies in the first steps: whoever waits for an answer waits on."""

    vllm_config = SimpleNamespace(cache_config=SimpleNamespace(num_gpu_blocks=900, block_size=BLOCK))
    errored = False

    def __init__(self) -> None:
        async def die(request: Any) -> None:
            self.errored = True

        self.engine_core = SimpleNamespace(
            resources=SimpleNamespace(engine_manager=None),
            add_request_async=die,
            get_output_async=asyncio.Event().wait,
        )


@pytest.mark.parametrize("is_prepared", [True, False])
async def test_an_engine_process_that_dies_in_the_first_steps_ends_the_start_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_prepared: bool
) -> None:
    engine = VllmStreamEngine(write_stream(tmp_path / "model"), {}, max_sessions=4, max_tokens=100)
    vllm = DyingVllm()

    async def prepare(core: Core) -> None:
        """What `Core.prepare` does without the package vllm."""
        if not is_prepared:
            vllm.errored = True
            await asyncio.Event().wait()
        core._template = SimpleNamespace()
        core._reading = asyncio.create_task(core._read())

    monkeypatch.setattr(engine, "_load", lambda: vllm)
    monkeypatch.setattr(Core, "prepare", prepare)
    with pytest.raises(Misconfigured, match=r"^streams\.vllm: the vLLM engine process crashed"):
        await asyncio.wait_for(engine.start(), 30)
    assert vllm.is_shut_down


class Crashed:
    """Takes the place of `Core`: its engine process crashes as soon as it is watched."""

    llm = StoppedVllm()
    failure = None

    async def watch(self, hangs_after_s: float) -> str:
        """Say so."""
        return "it crashed"

    def fail(self, reason: str) -> None:
        """Nothing waits."""

    def kill(self) -> None:
        """Nothing runs."""


async def replaced(engine: VllmStreamEngine, starts: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the engine with processes that crash. `starts` says what each start gives."""

    async def start(config: Any) -> Any:
        if isinstance(made := starts.pop(0), Exception):
            raise made
        return made

    monkeypatch.setattr(engine, "_new_core", start)
    await engine.start()


async def test_processes_that_crash_are_replaced_a_few_times_and_then_the_engine_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = VllmStreamEngine(write_stream(tmp_path), {}, max_sessions=4, max_tokens=100, replacements=2)
    starts: list[Any] = [Crashed(), Crashed(), Crashed(), Crashed()]
    await replaced(engine, starts, monkeypatch)
    with pytest.raises(Fatal, match=r"^it crashed\. It was replaced 2 times in a row"):
        await asyncio.wait_for(engine.watch(), 30)
    assert len(starts) == 1
    with pytest.raises(Fatal, match="it crashed"):
        await engine.open([1])
    await engine.close()


async def test_a_replacement_that_does_not_start_counts_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = VllmStreamEngine(write_stream(tmp_path), {}, max_sessions=4, max_tokens=100, replacements=1)
    await replaced(engine, [Crashed(), Misconfigured("no memory"), Crashed()], monkeypatch)
    waiting = asyncio.create_task(engine.open([1]))
    with pytest.raises(Fatal, match=r"no vLLM engine process starts: no memory"):
        await asyncio.wait_for(engine.watch(), 30)
    with pytest.raises(Fatal, match="no memory"):  # An opening without a deadline does not wait for ever.
        await asyncio.wait_for(waiting, 30)
    await engine.close()


async def test_a_failure_of_the_watch_itself_ends_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = VllmStreamEngine(write_stream(tmp_path), {}, max_sessions=4, max_tokens=100)
    await replaced(engine, [Crashed(), RuntimeError("unforeseen")], monkeypatch)
    with pytest.raises(Fatal, match="unforeseen"):
        await asyncio.wait_for(engine.watch(), 30)
    await engine.close()


async def test_an_opening_while_a_process_is_replaced_waits_no_longer_than_its_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = VllmStreamEngine(write_stream(tmp_path), {}, max_sessions=4, max_tokens=100)
    await replaced(engine, [Crashed()], monkeypatch)
    begun = asyncio.Event()

    async def never(config: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(engine, "_new_core", never)
    await asyncio.wait_for(begun.wait(), 30)
    with pytest.raises(Unavailable, match="replaced"):
        await engine.open([1], time.monotonic() + 0.01)
    watching = asyncio.create_task(engine.watch())
    await asyncio.sleep(0)
    await engine.close()
    await asyncio.wait_for(watching, 30)
    with pytest.raises(Fatal, match="closed"):
        await engine.open([1])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("onnxruntime", "OnnxStreamEngine"),
        ("transformers", "TransformersStreamEngine"),
        ("vllm", "VllmStreamEngine"),
    ],
)
def test_the_setting_selects_the_engine_and_its_bounds(name: str, kind: str) -> None:
    settings = Streams.model_validate(
        {"engine": name, "max_sessions": 7, "max_tokens": 3000, "vllm": {"dtype": "half"}}
    )
    engine = load_stream_engine(settings, Path("checkpoint"))
    assert type(engine).__name__ == kind
    assert (engine.max_sessions, engine.max_tokens) == (7, 3000)
