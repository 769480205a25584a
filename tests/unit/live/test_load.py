"""The guard of streams on the bundled kind of engine, with a small random checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.policy import StreamPolicy
from tests.checkpoints.stream import WINDOW, write_stream
from workers.errors import Misconfigured
from workers.guard.stream_convert import convert_stream
from workers.guard.tokens import Tokens
from workers.live.guard import LiveGuard
from workers.live.load import load_live_guard
from workers.live.session import Ruling
from workers.settings import Streams

TEXT = "The weather is fine today. 你好，世界。 And so on: 1, 2, 3! " * 30
OBSERVE = StreamPolicy(cut_prompt=None, cut_unsafe=None)
"""Judges, and never cuts: the random checkpoint finds many things."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = write_stream(tmp_path_factory.mktemp("stream"), window=WINDOW)
    converted = checkpoint / "converted"
    convert_stream(checkpoint, converted, "float32")
    return converted


def guard_of(folder: Path, **changes: Any) -> LiveGuard:
    return load_live_guard(
        Streams.model_validate(
            {"model": str(folder), "threads": 1, "max_sessions": 2, "max_tokens": 256, "anchor_tokens": 64, **changes}
        )
    )


async def judged(guard: LiveGuard, parts: Sequence[str]) -> tuple[list[list[float]], list[Ruling]]:
    session = guard.open(OBSERVE)
    rulings = [await session.user("How is the weather?")]
    for part in parts:
        rulings.append(await session.delta(part))
        await asyncio.sleep(0)
    rulings.append(await session.finish())
    await session.close()
    return [row for ruling in rulings for row in ruling.risk], rulings


@pytest.mark.asyncio
async def test_streams_are_judged_alike_however_they_are_divided_and_whatever_runs_beside_them(folder: Path) -> None:
    """More streams than sessions, and each of them re-anchors: the rows differ only by the last recorded digit."""
    guard = guard_of(folder)
    await guard.start()
    try:
        whole, (prompt, *rulings) = await judged(guard, [TEXT])
        assert prompt.prompt is not None
        assert np.isfinite(prompt.prompt.risk).all()
        assert not any(ruling.is_unavailable for ruling in rulings)
        assert rulings[-1].shown_chars == len(TEXT)
        assert len(whole) == len(Tokens(folder).content([TEXT])[0]) > 2 * 256
        np.testing.assert_allclose(np.sum(whole, axis=1), 1, atol=3e-4)
        assert len({tuple(row) for row in whole}) > 100
        sizes = (7, 40, 300, 41)
        divided = await asyncio.gather(
            *(judged(guard, [TEXT[start : start + size] for start in range(0, len(TEXT), size)]) for size in sizes)
        )
        for rows, _ in divided:
            np.testing.assert_allclose(rows, whole, atol=2.1e-4)
    finally:
        await guard.close()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": "/nowhere"}, r"streams\.model: no such folder: /nowhere \(or 'nano-stream'"),
        ({"engine": "transformers", "model": "/etc"}, r"streams\.model|guard\.model"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_with_a_sentence(
    folder: Path, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Misconfigured, match=sentence):
        guard_of(folder, **changes)


HARMLESS = (
    "The bus leaves at half past seven from the station. ",
    "We baked bread with olive oil and a little salt. ",
    "My sister plays the piano in the evening. ",
    "The garden has tomatoes, beans and some roses. ",
)
PLANTED = (
    "I will kill you and your family, you stupid bitch. I will come to your house with a knife and cut your throat. "
)


@pytest.mark.asyncio
async def test_nano_stream_finds_a_planted_span_alike_after_100_and_after_6000_tokens() -> None:
    """Past its bound the stream re-anchors again and again, and the span stands out as soon as without."""
    guard = load_live_guard(Streams(threads=1, max_tokens=1_024, anchor_tokens=256))
    await guard.start()
    found = []
    try:
        for sentences in (9, 540):
            session = guard.open(OBSERVE)
            await session.user("Tell me a story about a day in town.")
            context = await session.delta("".join(HARMLESS[number % 4] for number in range(sentences)))
            planted, end = await session.delta(PLANTED), await session.finish()
            unsafe = [row[2] for row in planted.risk + end.risk]
            assert max(unsafe) > 0.5
            found.append((len(context.risk), next(index for index, value in enumerate(unsafe) if value > 0.5)))
            await session.close()
    finally:
        await guard.close()
    (few, soon), (many, late) = found
    assert few >= 90
    assert many >= 6_000
    assert abs(late - soon) <= 8
