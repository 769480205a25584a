"""What every stream engine has to do, on the same small checkpoint: with full attention, and with a window."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import pytest_asyncio
from prometheus_client import Counter, Gauge

from tests.checkpoints.stream import CULPRIT, VOCABULARY, WINDOW, write_stream
from tests.unit.engines import stream_cases
from tests.unit.engines.stream_cases import MAX_SESSIONS, MAX_TOKENS, PARAMETERS, StreamCase
from tests.unit.engines.stream_reference import StreamReference
from workers import telemetry
from workers.engines.stream import Judged, Session, StreamEngine
from workers.engines.stream_checkpoint import read_config
from workers.errors import Fatal, Misconfigured, Unavailable, Unjudgeable

# An engine may take minutes to start: one for all tests of it.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

DRAW = np.random.default_rng(7)
TEXT: list[int] = DRAW.integers(3, CULPRIT, 100).tolist()
LONG: list[int] = DRAW.integers(3, CULPRIT, MAX_TOKENS).tolist()
MANY: list[list[int]] = [DRAW.integers(3, CULPRIT, 20 + 11 * number).tolist() for number in range(MAX_SESSIONS)]


@pytest.fixture(scope="module", params=PARAMETERS)
def case(request: pytest.FixtureRequest) -> StreamCase:
    return cast(StreamCase, request.param)


@pytest.fixture(scope="module", params=[None, WINDOW], ids=["full", "window"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream"), window=request.param)


@pytest.fixture(scope="module")
def reference(folder: Path) -> StreamReference:
    return StreamReference(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(case: StreamCase, folder: Path) -> AsyncIterator[StreamEngine]:
    engine = case.make(folder)
    with pytest.raises(Fatal, match="not running"):
        await engine.open(TEXT)
    await engine.close()
    await engine.start()
    yield engine
    session, _ = await engine.open(TEXT)
    under_way = [asyncio.create_task(engine.open(LONG)) for _ in range(3)]
    await asyncio.sleep(0)
    await engine.close()
    for answer in await asyncio.wait_for(asyncio.gather(*under_way, return_exceptions=True), 20):
        assert isinstance(answer, Fatal | Unavailable | tuple)
    assert session.is_lost
    with pytest.raises(Fatal, match="not running"):
        await engine.append(session, TEXT)
    await engine.end(session)
    await engine.close()


class Stream:
    """One session, and the rows that the engine gave for its tokens."""

    def __init__(self, engine: StreamEngine) -> None:
        self.engine = engine
        self.session: Session | None = None
        self.ids: list[int] = []
        self.chunks: list[Judged] = []

    async def push(self, ids: Sequence[int]) -> Judged:
        if self.session is None:
            self.session, judged = await self.engine.open(ids)
        else:
            judged = await self.engine.append(self.session, ids)
        self.ids += ids
        self.chunks.append(judged)
        assert self.session.tokens == len(self.ids)
        assert judged.risk.shape == (len(ids), 3)
        assert judged.categories.shape == (len(ids), 8)
        return judged

    async def push_in(self, ids: Sequence[int], size: int) -> None:
        for start in range(0, len(ids), size):
            await self.push(ids[start : start + size])

    async def end(self) -> None:
        if self.session is not None:
            await self.engine.end(self.session)

    def check(self, reference: StreamReference, case: StreamCase) -> None:
        """Compare every position, and the user's turn that ends with each chunk."""
        expected = reference.rows(self.ids)
        categories = case.category_tolerance or case.tolerance
        ends = np.cumsum([len(chunk.risk) for chunk in self.chunks]) - 1
        for name, found, tolerance in (
            ("risk", np.concatenate([chunk.risk for chunk in self.chunks]), case.tolerance),
            ("categories", np.concatenate([chunk.categories for chunk in self.chunks]), categories),
        ):
            np.testing.assert_allclose(found, expected[name], rtol=0, atol=tolerance, err_msg=name)
        for name, found in (
            ("prompt_risk", np.stack([chunk.prompt_risk for chunk in self.chunks])),
            ("prompt_categories", np.stack([chunk.prompt_categories for chunk in self.chunks])),
        ):
            np.testing.assert_allclose(found, expected[name][ends], rtol=0, atol=case.tolerance, err_msg=name)


async def judged(engine: StreamEngine, ids: Sequence[int], size: int = 16) -> Stream:
    """Send a whole answer, and end its session."""
    stream = Stream(engine)
    try:
        await stream.push_in(ids, size)
    finally:
        await stream.end()
    return stream


async def test_limits_are_known_after_the_start(engine: StreamEngine) -> None:
    assert (engine.max_sessions, engine.max_tokens) == (MAX_SESSIONS, MAX_TOKENS)
    assert engine.identity


async def test_sessions_longer_than_the_checkpoint_has_learnt_are_refused_at_the_start(
    case: StreamCase, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = read_config(folder).positions
    monkeypatch.setattr(stream_cases, "MAX_TOKENS", longest + 1)
    with pytest.raises(Misconfigured, match=rf"^streams\.max_tokens: {longest + 1} .* has learnt: {longest} "):
        await case.make(folder).start()


async def test_a_second_start_does_nothing(engine: StreamEngine, reference: StreamReference, case: StreamCase) -> None:
    stream = Stream(engine)
    await stream.push(TEXT[:5])
    await engine.start()
    await stream.push(TEXT[5:20])
    stream.check(reference, case)
    await stream.end()


@pytest.mark.parametrize("size", [1, 7, 16, len(TEXT)])
async def test_every_position_equals_the_reference_in_chunks_of_any_size(
    engine: StreamEngine, reference: StreamReference, case: StreamCase, size: int
) -> None:
    (await judged(engine, TEXT, size)).check(reference, case)


async def test_the_longest_session_equals_the_reference_past_the_window(
    engine: StreamEngine, reference: StreamReference, case: StreamCase
) -> None:
    stream = Stream(engine)
    await stream.push(LONG[:300])
    for size, end in ((1, 320), (64, 448), (16, 560), (137, MAX_TOKENS)):
        await stream.push_in(LONG[len(stream.ids) : end], size)
    stream.check(reference, case)
    await stream.end()


async def test_the_longest_session_may_come_in_one_chunk(
    engine: StreamEngine, reference: StreamReference, case: StreamCase
) -> None:
    (await judged(engine, LONG, MAX_TOKENS)).check(reference, case)


async def test_sessions_at_the_same_time_with_unequal_chunks_do_not_mix(
    engine: StreamEngine, reference: StreamReference, case: StreamCase
) -> None:
    draw = np.random.default_rng(11)
    streams = [Stream(engine) for _ in MANY]

    async def send(stream: Stream, ids: list[int]) -> None:
        while len(stream.ids) < len(ids):
            at = len(stream.ids)
            await stream.push(ids[at : at + int(draw.integers(1, 24))])

    await asyncio.gather(*(send(stream, ids) for stream, ids in zip(streams, MANY, strict=True)))
    for stream in streams:
        stream.check(reference, case)
        await stream.end()


async def test_all_sessions_may_have_their_longest_length_at_the_same_time(
    engine: StreamEngine, reference: StreamReference, case: StreamCase
) -> None:
    streams = [Stream(engine) for _ in range(MAX_SESSIONS)]
    for start in range(0, MAX_TOKENS, 90):
        await asyncio.gather(*(stream.push_in(LONG[start : start + 90], 45) for stream in streams))
    for stream in streams:
        stream.check(reference, case)
        await stream.end()


async def test_sessions_and_tokens_are_counted(engine: StreamEngine) -> None:
    def counted() -> tuple[float, float]:
        return total(telemetry.STREAM_ENGINE_SESSIONS), total(telemetry.STREAM_ENGINE_TOKENS)

    _, tokens = counted()
    opened = [await engine.open(TEXT[:5]) for _ in range(3)]
    await engine.append(opened[0][0], TEXT[5:45])
    assert counted() == (3, tokens + 3 * 5 + 40)
    for session, _ in opened:
        await engine.end(session)
    assert counted() == (0, tokens + 3 * 5 + 40)


def total(metric: Counter | Gauge) -> float:
    return next(sample.value for sample in next(iter(metric.collect())).samples)


async def test_a_session_in_a_used_slot_has_no_trace_of_the_former_one(
    engine: StreamEngine, reference: StreamReference, case: StreamCase
) -> None:
    held = [Stream(engine) for _ in range(MAX_SESSIONS - 1)]
    for stream in held:
        await stream.push(TEXT[:3])
    for ids in (LONG[:400], MANY[2], MANY[0], LONG[100:160]):
        (await judged(engine, ids, 60)).check(reference, case)
    for stream in held:
        await stream.push(TEXT[3:9])
        stream.check(reference, case)
        await stream.end()


@pytest.mark.parametrize(
    "ids",
    [[], [VOCABULARY], [5, -1], [2**31], [-(2**63)], [5] * (MAX_TOKENS + 1)],
    ids=["empty", "high", "-1", "2^31", "-2^63", "long"],
)
async def test_a_chunk_that_cannot_be_run_is_refused_and_changes_nothing(
    engine: StreamEngine, reference: StreamReference, case: StreamCase, ids: list[int]
) -> None:
    stream = Stream(engine)
    await stream.push(TEXT[:7])
    assert stream.session is not None
    for _ in range(MAX_SESSIONS + 1):  # A refused opening takes no slot.
        with pytest.raises(Unjudgeable):
            await engine.open(ids)
    with pytest.raises(Unjudgeable):
        await engine.append(stream.session, ids)
    assert not stream.session.is_lost
    await stream.push(TEXT[7:12])
    stream.check(reference, case)
    await stream.end()


async def test_a_session_takes_max_tokens_and_not_one_more(
    engine: StreamEngine, reference: StreamReference, case: StreamCase
) -> None:
    stream = Stream(engine)
    await stream.push_in(LONG[: MAX_TOKENS - 1], 128)
    assert stream.session is not None
    with pytest.raises(Unjudgeable, match="max_tokens"):
        await engine.append(stream.session, [5, 6])
    await stream.push(LONG[MAX_TOKENS - 1 :])
    with pytest.raises(Unjudgeable, match="max_tokens"):
        await engine.append(stream.session, [5])
    assert not stream.session.is_lost
    stream.check(reference, case)
    await stream.end()


async def test_without_a_free_slot_an_opening_fails_and_no_session_suffers(
    engine: StreamEngine, reference: StreamReference, case: StreamCase
) -> None:
    streams = [Stream(engine) for _ in MANY]
    for stream, ids in zip(streams, MANY, strict=True):
        await stream.push(ids[:10])
    for _ in range(3):
        with pytest.raises(Unavailable):
            await asyncio.wait_for(engine.open(TEXT), 20)
    await asyncio.gather(*(stream.push(ids[10:]) for stream, ids in zip(streams, MANY, strict=True)))
    await streams[3].end()
    (await judged(engine, TEXT)).check(reference, case)
    for stream in streams:
        stream.check(reference, case)
        await stream.end()


async def test_a_passed_deadline_is_unavailable_and_never_an_answer(
    engine: StreamEngine, reference: StreamReference, case: StreamCase
) -> None:
    stream = Stream(engine)
    await stream.push(TEXT[:4])
    assert stream.session is not None
    for _ in range(MAX_SESSIONS + 1):
        with pytest.raises(Unavailable):
            await engine.open(TEXT, time.monotonic() - 1)
    with pytest.raises(Unavailable):
        await engine.append(stream.session, TEXT[4:8], time.monotonic() - 1)
    if not stream.session.is_lost:
        await stream.push(TEXT[4:8])
        stream.check(reference, case)
    await stream.end()
    session, _ = await engine.open(TEXT, time.monotonic() + 60)
    await engine.append(session, TEXT[:3], time.monotonic() + 60)
    await engine.end(session)


async def test_a_deadline_that_passes_in_flight_loses_at_most_its_own_session(
    engine: StreamEngine, reference: StreamReference, case: StreamCase
) -> None:
    streams = [Stream(engine) for _ in MANY]
    for stream, ids in zip(streams, MANY, strict=True):
        await stream.push(ids[:10])
    late, *others = streams
    assert late.session is not None
    answers = await asyncio.gather(
        engine.append(late.session, LONG[: MAX_TOKENS - 10], time.monotonic() + 0.0005),
        *(stream.push(ids[10:]) for stream, ids in zip(others, MANY[1:], strict=True)),
        return_exceptions=True,
    )
    assert isinstance(answers[0], Unavailable)
    if late.session.is_lost:
        with pytest.raises(Unavailable):
            await engine.append(late.session, TEXT)
    else:
        await late.push(MANY[0][10:])
        late.check(reference, case)
    for stream in others:
        stream.check(reference, case)
    for stream in streams:
        await stream.end()
    await all_slots_are_free(engine)


async def test_a_cancelled_append_loses_at_most_its_own_session(
    engine: StreamEngine, reference: StreamReference, case: StreamCase
) -> None:
    streams = [Stream(engine) for _ in MANY[:3]]
    for stream, ids in zip(streams, MANY, strict=False):
        await stream.push(ids[:10])
    assert streams[0].session is not None
    task = asyncio.ensure_future(engine.append(streams[0].session, LONG[:600]))
    others = [asyncio.ensure_future(stream.push(ids[10:])) for stream, ids in zip(streams[1:], MANY[1:], strict=False)]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.gather(*others)
    for stream in streams[1:]:
        stream.check(reference, case)
    for stream in streams:
        await stream.end()
    await all_slots_are_free(engine)


async def test_a_session_may_be_ended_twice_and_takes_nothing_afterwards(engine: StreamEngine) -> None:
    for _ in range(2 * MAX_SESSIONS):
        session, _ = await engine.open(TEXT[:5])
        await engine.end(session)
        await engine.end(session)
        assert session.is_lost
        with pytest.raises(Unavailable):
            await engine.append(session, TEXT[5:])
    await all_slots_are_free(engine)


async def test_a_session_may_be_ended_while_it_is_judged(
    engine: StreamEngine, reference: StreamReference, case: StreamCase
) -> None:
    session, _ = await engine.open(TEXT[:5])
    append = asyncio.ensure_future(engine.append(session, LONG[:400]))
    await asyncio.sleep(0)
    await engine.end(session)
    (answer,) = await asyncio.wait_for(asyncio.gather(append, return_exceptions=True), 60)
    assert isinstance(answer, Judged | Unavailable)
    await all_slots_are_free(engine)
    (await judged(engine, TEXT)).check(reference, case)


@pytest.mark.parametrize(
    "case", [case for case in PARAMETERS if not cast(StreamCase, case.values[0]).leaks_nan], indirect=True
)
async def test_a_session_whose_numbers_overflow_is_lost_and_leaves_no_trace(
    engine: StreamEngine, reference: StreamReference, case: StreamCase
) -> None:
    streams = [Stream(engine) for _ in MANY[:4]]
    for stream, ids in zip(streams, MANY, strict=False):
        await stream.push(ids[:10])
    culprit, *others = streams
    assert culprit.session is not None
    for _ in range(3):
        answers = await asyncio.gather(
            *(engine.open([5, 6, CULPRIT, 7]) for _ in range(MAX_SESSIONS - len(streams))),
            *(stream.push([8, 9]) for stream in others),
            return_exceptions=True,
        )
        refused = answers[: -len(others)]
        assert [isinstance(answer, Unjudgeable) and answer.reason for answer in refused] == ["no_number"] * len(refused)
    with pytest.raises(Unjudgeable, match="no_number"):
        await engine.append(culprit.session, [CULPRIT])
    assert culprit.session.is_lost
    for stream in others:
        await stream.push(LONG[:90])
        stream.check(reference, case)
        await stream.end()
    for ids in MANY[:3]:
        (await judged(engine, ids)).check(reference, case)


async def test_rows_are_probabilities(engine: StreamEngine) -> None:
    session, rows = await engine.open(TEXT, math.inf)
    await engine.end(session)
    for probabilities in (rows.risk, rows.categories, rows.prompt_risk, rows.prompt_categories):
        assert probabilities.dtype == np.float32
        assert probabilities.min() >= 0
        np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=0.02)


async def all_slots_are_free(engine: StreamEngine) -> None:
    """Wait for the slots of sessions that have ended while a step was in flight, and use all of them."""
    deadline = time.monotonic() + 60
    while True:
        opened = await asyncio.gather(*(engine.open([5]) for _ in range(MAX_SESSIONS)), return_exceptions=True)
        for answer in opened:
            if isinstance(answer, tuple):
                await engine.end(answer[0])
        if all(isinstance(answer, tuple) for answer in opened):
            return
        assert time.monotonic() < deadline, opened
        await asyncio.sleep(0.05)
