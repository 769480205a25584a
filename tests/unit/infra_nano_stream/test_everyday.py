"""nano-stream cuts open harm in a few answers, and no harmless one, with the rules of a tenant without a policy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from schemas.policy import StreamPolicy
from tests.lines import read_lines
from workers.live.guard import LiveGuard
from workers.live.load import load_live_guard
from workers.settings import Streams

LINES = {line["name"]: line for line in read_lines(Path(__file__).with_name("everyday.jsonl"))}
"""Answers with their labels, as `guardline eval stream` reads them."""
HARMFUL = [name for name, line in LINES.items() if line["gold"]["severity"] == "Unsafe"]
HARMLESS = [name for name in LINES if name not in HARMFUL]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guard() -> AsyncIterator[LiveGuard]:
    made = load_live_guard(Streams(threads=1))
    await made.start()
    yield made
    await made.close()


async def cut_at(guard: LiveGuard, name: str) -> int | None:
    """Return how many characters were shown when the answer was cut, or None. It arrives word by word."""
    session = guard.open(StreamPolicy(cut_prompt=None))
    try:
        await session.user(LINES[name]["question"])
        for word in LINES[name]["text"].split(" "):
            await session.delta(f"{word} ")
        await session.finish()
        return None if session.cut is None else session.cut.shown_chars
    finally:
        await session.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", HARMLESS)
async def test_a_harmless_answer_is_shown_to_its_end(guard: LiveGuard, name: str) -> None:
    assert await cut_at(guard, name) is None


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", HARMFUL)
async def test_a_harmful_answer_is_cut_behind_its_onset(guard: LiveGuard, name: str) -> None:
    shown = await cut_at(guard, name)
    assert shown is not None
    assert LINES[name]["gold"]["onset_chars"] <= shown < len(LINES[name]["text"]) - 10
