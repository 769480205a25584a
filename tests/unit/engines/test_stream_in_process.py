"""What the stream engines of this process do in trouble: on onnxruntime, with steps that fail, hang or wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints.stream import CULPRIT, write_stream
from tests.site import eventually
from tests.unit.engines.stream_reference import StreamReference
from workers.engines import stream_in_process
from workers.engines.stream import Floats, Judged
from workers.engines.stream_in_process import PIECE_TOKENS, SHORT_TOKENS, Piece, SlotSession
from workers.engines.stream_onnx import OnnxStreamEngine
from workers.errors import Fatal, Unavailable
from workers.guard.stream_convert import convert_stream

IDS: list[int] = np.random.default_rng(5).integers(3, CULPRIT, 1_000).tolist()
MAX_SESSIONS = 6


class Watched(OnnxStreamEngine):
    """Records its steps. The next ones can be made to wait or to fail."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, max_sessions=MAX_SESSIONS, max_tokens=len(IDS), threads=1)
        self.steps: list[list[tuple[int, int]]] = []
        """For each step: the slot and the number of tokens of each piece."""
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None

    def _step(self, model: Any, pieces: Sequence[Piece]) -> Floats:
        self.steps.append([(piece.slot, len(piece.ids)) for piece in pieces])
        assert self.gate.wait(60)
        if self.failure is not None:
            raise self.failure
        return super()._step(model, pieces)

    async def blocked(self) -> None:
        """Wait until a step has begun."""
        await asyncio.to_thread(eventually, lambda: bool(self.steps), "a step began")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_stream(tmp_path_factory.mktemp("stream"))
    convert_stream(folder, folder / "onnx", "float32")
    return folder


@pytest.fixture
async def engine(folder: Path) -> AsyncIterator[Watched]:
    engine = Watched(folder / "onnx")
    await engine.start()
    yield engine
    engine.gate.set()
    await engine.close()


async def opened(engine: Watched, ids: Sequence[int]) -> SlotSession:
    session, _ = await engine.open(ids)
    assert isinstance(session, SlotSession)
    return session


async def continues(engine: Watched, session: SlotSession, folder: Path, past: Sequence[int]) -> None:
    """Check that a session holds exactly `past`."""
    assert session.tokens == len(past)
    judged = await engine.append(session, IDS[500:520])
    expected = StreamReference(folder).rows([*past, *IDS[500:520]])["risk"][len(past) :]
    np.testing.assert_allclose(judged.risk, expected, atol=1e-4)


async def test_a_long_chunk_does_not_stop_the_other_sessions(engine: Watched) -> None:
    long, short = await opened(engine, IDS[:3]), await opened(engine, IDS[:5])
    other = await opened(engine, IDS[:3])
    engine.steps.clear()
    ends: list[str] = []

    async def append(name: str, session: SlotSession, ids: Sequence[int]) -> None:
        await engine.append(session, ids)
        ends.append(name)

    async def typing() -> None:
        for token in IDS[:8]:
            await append("short", short, [token])

    await asyncio.gather(append("long", long, IDS[:900]), append("other", other, IDS[: SHORT_TOKENS + 1]), typing())
    assert ends.index("long") > ends.index("other"), "a shorter long chunk takes its turn between the pieces"
    assert ends[: ends.index("long")].count("short") >= 6
    assert max(tokens for step in engine.steps for _, tokens in step) == PIECE_TOKENS


async def test_calls_that_wait_at_the_same_time_share_a_step(engine: Watched) -> None:
    sessions = [await opened(engine, IDS[: 3 + number]) for number in range(MAX_SESSIONS)]
    engine.steps.clear()
    await asyncio.gather(*(engine.append(session, IDS[: 1 + at]) for at, session in enumerate(sessions)))
    assert [len(step) for step in engine.steps] == [MAX_SESSIONS]


async def test_a_step_that_fails_loses_the_sessions_in_it_and_no_other(engine: Watched, folder: Path) -> None:
    first, second, third = [await opened(engine, IDS[: 10 + number]) for number in range(3)]
    engine.failure = RuntimeError("no memory")
    answers = await asyncio.gather(engine.append(first, [5]), engine.append(second, [6]), return_exceptions=True)
    engine.failure = None
    for answer in answers:
        assert isinstance(answer, Unavailable)
        assert "no memory" in str(answer)
    assert [session.is_lost for session in (first, second, third)] == [True, True, False]
    await continues(engine, third, folder, IDS[:12])
    for _ in range(MAX_SESSIONS - 1):  # The slots of the lost sessions are free, and hold nothing.
        await continues(engine, await opened(engine, IDS[20:30]), folder, IDS[20:30])


async def test_an_engine_that_hangs_is_unavailable_by_the_deadline_and_fatal_in_the_end(
    engine: Watched, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_step, waiting = await opened(engine, IDS[:4]), await opened(engine, IDS[:6])
    engine.gate.clear()
    with pytest.raises(Unavailable, match="deadline"):
        await engine.append(in_step, [5], time.monotonic() + 0.05)
    assert in_step.is_lost
    assert in_step.slot is not None, "the step may still write to the slot"
    with pytest.raises(Unavailable, match="deadline"):
        await engine.append(waiting, [5], time.monotonic() + 0.05)
    assert not waiting.is_lost
    with pytest.raises(Unavailable, match="deadline"):
        await engine.open([5], time.monotonic() + 0.05)
    watch = asyncio.create_task(engine.watch())
    await asyncio.sleep(0)
    assert not watch.done()
    monkeypatch.setattr(stream_in_process, "HANGS_AFTER_S", 0.01)
    with pytest.raises(Fatal, match="hangs: a step has taken more than"):
        await asyncio.wait_for(watch, 30)
    engine.gate.set()
    await continues(engine, waiting, folder, IDS[:6])
    for _ in range(MAX_SESSIONS - 1):
        await opened(engine, [7])


async def test_a_close_while_a_step_runs_ends_every_call_at_once(engine: Watched) -> None:
    session = await opened(engine, IDS[:4])
    engine.steps.clear()
    engine.gate.clear()
    calls = [asyncio.create_task(engine.append(session, [5])), asyncio.create_task(engine.open([6]))]
    await engine.blocked()
    watch = asyncio.create_task(engine.watch())
    await engine.close()
    for answer in await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 10):
        assert isinstance(answer, Fatal)
    assert session.is_lost
    await asyncio.wait_for(watch, 30)
    engine.gate.set()


async def test_an_engine_may_be_started_again_after_a_close(engine: Watched, folder: Path) -> None:
    await opened(engine, IDS[:4])
    await engine.close()
    await engine.start()
    for _ in range(MAX_SESSIONS):
        await continues(engine, await opened(engine, IDS[:9]), folder, IDS[:9])


async def test_what_nobody_waits_for_any_more_is_not_run(engine: Watched) -> None:
    first, second = await opened(engine, IDS[:4]), await opened(engine, IDS[:4])
    engine.steps.clear()
    engine.gate.clear()
    running = asyncio.create_task(engine.append(first, [5]))
    await engine.blocked()
    abandoned = asyncio.create_task(engine.append(second, IDS[:900]))
    await asyncio.sleep(0)
    abandoned.cancel()
    await asyncio.wait([abandoned])
    engine.steps.clear()
    engine.gate.set()
    assert isinstance(await running, Judged)
    await engine.append(second, [6])
    assert second.tokens == 5
    assert [tokens for step in engine.steps for _, tokens in step] == [1]
