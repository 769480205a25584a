"""The stream engine on a real vLLM: no row of another session, and engine processes that are killed and stopped.

One engine serves all tests, and the last two end it: a start takes 15 s of CPU.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest
import pytest_asyncio

from schemas.policy import StreamPolicy
from tests.checkpoints.stream import VOCABULARY, write_stream
from tests.live_streams import FOLDER, TOKENS
from tests.unit.engines.stream_reference import StreamReference
from workers.engines.stream import Judged, Session
from workers.engines.stream_vllm import VllmStreamEngine
from workers.engines.stream_vllm_rows import ROWS
from workers.errors import Fatal, Unavailable
from workers.live.guard import LiveGuard

pytestmark = [
    pytest.mark.needs("vllm"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
]

SESSIONS, LENGTH, WINDOW = 4, 400, 64
START_S = 400
IDS: list[int] = np.random.default_rng(3).integers(3, VOCABULARY, LENGTH).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream"), window=WINDOW)


@pytest.fixture(scope="module")
def reference(folder: Path) -> StreamReference:
    return StreamReference(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(folder: Path) -> AsyncIterator[VllmStreamEngine]:
    engine = VllmStreamEngine(
        folder,
        {"dtype": "float32"},
        max_sessions=SESSIONS,
        max_tokens=LENGTH,
        hangs_after_s=10,
        replacements=1,
    )
    await engine.start()
    yield engine
    await engine.close()


def core_process(engine: VllmStreamEngine) -> psutil.Process:
    assert engine._core is not None
    (process,) = engine._core.processes()
    found = psutil.Process(process.pid)
    assert "EngineCore" in " ".join(found.cmdline())
    return found


async def until(fact: object, what: str, within_s: float = 60) -> None:
    assert callable(fact)
    deadline = time.monotonic() + within_s
    while not fact():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


async def judged(engine: VllmStreamEngine, ids: list[int], *sizes: int) -> tuple[Session, list[Judged]]:
    """Open a session with a chunk of the first size, and append the others."""
    session, first = await engine.open(ids[: sizes[0]], time.monotonic() + START_S)
    later = [await engine.append(session, ids[session.tokens : session.tokens + size]) for size in sizes[1:]]
    return session, [first, *later]


def check(chunks: list[Judged], reference: StreamReference, ids: list[int]) -> None:
    risk = np.concatenate([chunk.risk for chunk in chunks])
    categories = np.concatenate([chunk.categories for chunk in chunks])
    expected = reference.rows(ids)
    np.testing.assert_allclose(risk, expected["risk"][: len(risk)], rtol=0, atol=1e-4)
    np.testing.assert_allclose(categories, expected["categories"][: len(risk)], rtol=0, atol=1e-4)


async def test_the_rows_of_a_chunk_are_only_those_of_its_own_request() -> None:
    import torch

    from workers.engines.stream_vllm_model import last_rows

    draw = np.random.default_rng(5)
    for _ in range(20):
        lengths = draw.integers(1, 3 * ROWS, draw.integers(1, 9))
        starts = np.concatenate([[0], np.cumsum(lengths)])
        rows = torch.arange(int(starts[-1]), dtype=torch.float32)[:, None]
        windows, counts = last_rows(rows, torch.tensor(starts, dtype=torch.int32))
        for begin, end in pairwise(starts):
            for at in range(begin, end):
                count = min(at - begin + 1, ROWS)
                assert counts[at] == count
                assert windows[at, ROWS - count :].tolist() == list(range(at - count + 1, at + 1))
    _, counts = last_rows(rows, None)
    assert counts.tolist() == [1] * len(rows), "without the borders only a token's own row is known to be its own"


async def test_equal_openings_of_sessions_are_judged_at_every_position(
    engine: VllmStreamEngine, reference: StreamReference
) -> None:
    """A prefix cache would leave the rows out that are equal, and tell a tenant what another one sent."""
    made = await asyncio.gather(*(judged(engine, IDS, 150, 1, 40) for _ in range(SESSIONS)))
    for session, chunks in made:
        check(chunks, reference, IDS)
        await engine.end(session)


async def test_an_engine_that_stops_shortly_loses_no_session(
    engine: VllmStreamEngine, reference: StreamReference
) -> None:
    session, chunks = await judged(engine, IDS, 20)
    process = core_process(engine)
    process.suspend()
    append = asyncio.create_task(engine.append(session, IDS[20:50]))
    try:
        await asyncio.sleep(2)
        assert not append.done()
    finally:
        process.resume()
    check([*chunks, await append], reference, IDS)
    await engine.end(session)
    assert core_process(engine) == process, "and it was not replaced"


async def test_a_killed_engine_fails_its_callers_at_once_and_is_replaced(
    engine: VllmStreamEngine, reference: StreamReference
) -> None:
    """A stream that is being judged goes on to the same cut."""
    (idle, _), (waiting, _) = await judged(engine, IDS, 60), await judged(engine, IDS, 60)
    before = TOKENS.fixed("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
    unsafe = reference.rows([*before, *IDS[:200]])["risk"][len(before) :, 2]
    cut = int(unsafe.argmax())
    guard = LiveGuard(engine, FOLDER, max_tokens=LENGTH, anchor_tokens=16, append_within_s=START_S)
    await guard.start()
    policy = StreamPolicy(threshold=(unsafe[:cut].max() + unsafe[cut]) / 2, cut_unsafe=1, cut_prompt=None)
    stream = guard.open(policy)
    assert (await stream.user("Hello")).prompt is not None
    rulings = [await stream.delta(IDS[:60])]
    assert cut > 60
    killed = core_process(engine)
    killed.suspend()
    append = asyncio.create_task(engine.append(waiting, IDS[60:200]))
    going_on = asyncio.create_task(stream.delta(IDS[60:200]))
    await asyncio.sleep(0.1)
    killed.kill()
    with pytest.raises(Unavailable, match="crashed"):
        await asyncio.wait_for(append, 30)
    await until(lambda: idle.is_lost, "an idle session is known to be lost")
    assert waiting.is_lost
    with pytest.raises(Unavailable):
        await engine.append(idle, IDS[60:70])
    with pytest.raises(Unavailable, match="replaced"):
        await engine.open(IDS[:5], time.monotonic() + 0.1)
    # A later deadline waits for the next engine; the same tokens give the same rows.
    rulings.append(await going_on)
    assert rulings[-1].cut is not None
    assert (rulings[-1].cut.position, rulings[-1].cut.reason) == (cut, "unsafe")
    risk = [row for ruling in rulings for row in ruling.risk]
    np.testing.assert_allclose([row[2] for row in risk], unsafe[: cut + 1], rtol=0, atol=2e-4)
    session, chunks = await judged(engine, IDS, 60, 140)
    check(chunks, reference, IDS)
    assert core_process(engine).pid != killed.pid
    for lost in (idle, waiting, session):
        await engine.end(lost)
    held = [await engine.open(IDS[:3]) for _ in range(SESSIONS)]
    for one, _ in held:
        await engine.end(one)


async def test_an_engine_that_hangs_is_killed_and_ends_the_worker_if_it_was_replaced_too_often(
    engine: VllmStreamEngine,
) -> None:
    """vLLM calls a stopped engine healthy."""
    assert engine._core is not None
    llm, process = engine._core.llm, core_process(engine)
    session, _ = await engine.open(IDS[:9])
    watching = asyncio.create_task(engine.watch())
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(Unavailable, match="deadline"):
        await engine.append(session, IDS[9:20], time.monotonic() + 0.5)
    assert session.is_lost
    await llm.check_health()
    assert not llm.errored
    with pytest.raises(Fatal, match=r"hangs: it has answered nothing for 10 s\. It was replaced 1 times in a row"):
        await asyncio.wait_for(watching, 60)
    await until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, "its process was killed")
    with pytest.raises(Fatal, match="hangs"):
        await engine.open(IDS[:5])
    with pytest.raises(Fatal, match="hangs"):
        await engine.watch()
