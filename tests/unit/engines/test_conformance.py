"""What every engine has to do, on the same checkpoint."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import psutil
import pytest
import pytest_asyncio

from tests.answers import answered
from tests.checkpoints.overflowing import CULPRIT, write_overflowing
from tests.site import eventually
from tests.unit.engines.cases import OVERFLOWING, PARAMETERS, Case
from tests.unit.engines.reference import (
    COMPLETION_TOKENS,
    CONTEXT_TOKENS,
    VOCABULARY,
    Reference,
    read_reference,
    weights_digest,
)
from workers.engines.engine import MAX_CANDIDATES, Engine, Refused
from workers.errors import Fatal, GuardlineError

# An engine may take minutes to start: one for all tests of it.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]

PROMPTS = [list(range(300, 300 + length)) for length in (3, 40, 7, 7, 120, 1, 64)]


@pytest.fixture(scope="module", params=PARAMETERS)
def case(request: pytest.FixtureRequest) -> Case:
    return cast(Case, request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(case: Case) -> AsyncIterator[Engine]:
    engine = case.make()
    before = processes()
    await engine.start()
    started = processes() - before
    yield engine
    under_way = [asyncio.create_task(engine.complete(PROMPTS, COMPLETION_TOKENS)) for _ in range(8)]
    await asyncio.sleep(0.02)
    await engine.close()
    answers = await asyncio.wait_for(asyncio.gather(*under_way, return_exceptions=True), 20)
    assert all(isinstance(answer, list | GuardlineError) for answer in answers), answers
    await engine.close()
    with pytest.raises(Fatal, match="not running"):
        await engine.score(PROMPTS, [400])
    # vLLM kills what does not end in time, and does not wait for that.
    await asyncio.to_thread(eventually, lambda: not processes() & started, "every process of the engine ended")


def processes() -> set[psutil.Process]:
    """Give the processes below this one, but for the one that Python keeps for itself."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(process.cmdline()):
                found.add(process)
    return found


@pytest.fixture(scope="module")
def reference() -> Reference:
    reference = read_reference()
    assert reference.weights == weights_digest(), "the checkpoint is another one: make engine-reference"
    return reference


async def test_scores_equal_those_of_the_reference(engine: Engine, case: Case, reference: Reference) -> None:
    rows = await engine.score(reference.prompts[: reference.texts], reference.candidates)
    for row, expected in zip(rows, reference.scores[: reference.texts], strict=True):
        assert row == pytest.approx(expected, abs=case.tolerance)


async def test_completions_equal_those_of_the_reference(engine: Engine, case: Case, reference: Reference) -> None:
    count = len(reference.prompts) if case.is_exact else reference.texts
    completions = await engine.complete(reference.prompts[:count], COMPLETION_TOKENS)
    same = sum(mine == its for mine, its in zip(completions, reference.completions[:count], strict=True))
    assert same >= case.same_completions * count


async def test_a_batch_of_mixed_lengths_scores_as_each_prompt_alone(engine: Engine, case: Case) -> None:
    together = await engine.score(PROMPTS, [400, 401, 402])
    for prompt, row in zip(PROMPTS, together, strict=True):
        (alone,) = await engine.score([prompt], [400, 401, 402])
        assert row == pytest.approx(alone, abs=case.drift)


async def test_a_prompt_given_twice_scores_the_same(engine: Engine, case: Case) -> None:
    first, again = await engine.score([PROMPTS[4], PROMPTS[4]], [400, 401])
    assert first == pytest.approx(again, abs=case.drift)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def full_rows(engine: Engine) -> list[list[float]]:
    """The scores of the whole vocabulary, asked for as many candidates at a time as an engine has to take."""
    rows: list[list[float]] = [[] for _ in PROMPTS[:3]]
    for start in range(0, VOCABULARY, MAX_CANDIDATES):
        candidates = range(start, min(start + MAX_CANDIDATES, VOCABULARY))
        for row, part in zip(rows, answered(await engine.score(PROMPTS[:3], candidates)), strict=True):
            row += part
    return rows


async def test_scores_are_log_probabilities_over_the_full_vocabulary(full_rows: list[list[float]]) -> None:
    for row in full_rows:
        assert sum(math.exp(value) for value in row) == pytest.approx(1, abs=2e-3)
        assert max(row) <= 0


async def test_the_most_likely_candidate_is_the_completion(engine: Engine, full_rows: list[list[float]]) -> None:
    completions = await engine.complete(PROMPTS[:3], 1)
    for row, completion in zip(full_rows, completions, strict=True):
        best = max(range(len(row)), key=row.__getitem__)
        assert completion in ([best], []), "an end-of-text token ends the completion and is not part of it"


async def test_candidates_keep_their_order(engine: Engine, case: Case) -> None:
    ((first, second),) = answered(await engine.score([PROMPTS[1]], [400, 7]))
    ((second_again, first_again),) = answered(await engine.score([PROMPTS[1]], [7, 400]))
    assert (first, second) == pytest.approx((first_again, second_again), abs=case.drift)


async def test_answered_prompts_are_counted(engine: Engine) -> None:
    """By it the judge tells an engine that is slow from one that hangs."""
    before = engine.answered
    await engine.score(PROMPTS, [400])
    assert engine.answered == before + len(PROMPTS)
    await engine.complete(PROMPTS[:3], COMPLETION_TOKENS)
    assert engine.answered == before + len(PROMPTS) + 3


async def test_an_empty_batch_has_no_answers(engine: Engine) -> None:
    assert await engine.score([], [1]) == []
    assert await engine.complete([], 1) == []


@pytest.mark.parametrize("prompt", [[], [1] * CONTEXT_TOKENS, [VOCABULARY], [-1]], ids=["empty", "long", "high", "-1"])
async def test_a_prompt_that_cannot_be_run_is_refused_and_the_others_are_answered(
    engine: Engine, prompt: list[int]
) -> None:
    for answers in (await engine.score([[5], prompt, [7]], [1]), await engine.complete([[5], prompt, [7]], 1)):
        before, refused, after = answers
        assert isinstance(refused, Refused)
        assert refused.reason in ("prompt_length", "prompt_ids")
        assert isinstance(before, list)
        assert isinstance(after, list)
    assert await engine.score([prompt], [1]) == [(await engine.score([[5], prompt], [1]))[1]]


async def test_a_prompt_and_its_answer_may_fill_the_context(engine: Engine) -> None:
    assert len(await engine.score([[5] * (CONTEXT_TOKENS - 1)], [1, 2])) == 1
    assert len(await engine.complete([[5] * (CONTEXT_TOKENS - 3)], 3)) == 1
    assert isinstance((await engine.complete([[5] * (CONTEXT_TOKENS - 3)], 4))[0], Refused)


async def test_a_cancelled_call_leaves_the_engine_usable(engine: Engine, case: Case) -> None:
    before = await engine.score([PROMPTS[0]], [400])
    task = asyncio.ensure_future(engine.score([PROMPTS[4]] * 50, [400]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await engine.score([PROMPTS[0]], [400]))[0] == pytest.approx(before[0], abs=case.drift)


async def test_a_call_that_runs_out_of_time_leaves_the_engine_usable(engine: Engine) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await engine.score([PROMPTS[4]] * 200, [400])
    assert len(await engine.score([PROMPTS[0]], [400])) == 1


async def test_concurrent_calls_get_their_own_answers(engine: Engine, case: Case) -> None:
    calls = [engine.score([prompt], [400, 401]) for prompt in PROMPTS]
    for (row,), (expected,) in zip(
        await asyncio.gather(*calls), [await engine.score([prompt], [400, 401]) for prompt in PROMPTS], strict=True
    ):
        assert row == pytest.approx(expected, abs=case.drift)


async def test_an_engine_that_was_not_started_says_so_and_may_be_closed(case: Case) -> None:
    engine = case.make()
    with pytest.raises(Fatal, match="not running"):
        await engine.score(PROMPTS, [400])
    await engine.close()


async def test_a_second_start_does_nothing(engine: Engine) -> None:
    before = processes()
    # Where the model is an object of this process, a second one would not show among the processes.
    model = getattr(engine, "_model", None)
    await engine.start()
    assert processes() == before
    assert getattr(engine, "_model", None) is model
    assert len(await engine.score(PROMPTS, [400])) == len(PROMPTS)


@pytest.mark.parametrize("overflowing", OVERFLOWING)
async def test_a_prompt_without_a_number_is_refused_and_the_others_are_answered(
    overflowing: Case, tmp_path: Path
) -> None:
    """Whatever an engine keeps of a prompt, such as its keys and values, no other prompt may get a number of it."""
    engine = overflowing.make_overflowing(write_overflowing(tmp_path / "overflowing"))
    await engine.start()
    try:
        expected = answered(await engine.score(PROMPTS, [400, 401]))
        culprits = {0: [*PROMPTS[0], CULPRIT, 7], len(PROMPTS) + 1: [CULPRIT]}
        prompts = [culprits[0], *PROMPTS, culprits[len(PROMPTS) + 1], *PROMPTS]
        for _ in range(3):
            rows = await engine.score(prompts, [400, 401])
            refused = {index for index, row in enumerate(rows) if isinstance(row, Refused)}
            assert refused >= set(culprits)
            assert overflowing.leaks_nan or refused == set(culprits)
            for row, other in zip(rows, [None, *expected, None, *expected], strict=True):
                assert isinstance(row, Refused) or row == pytest.approx(other, abs=overflowing.drift)
        assert len(await engine.complete(PROMPTS, 2)) == len(PROMPTS)
    finally:
        await engine.close()


@pytest.mark.parametrize("case", [case for case in PARAMETERS if cast(Case, case.values[0]).make_mortal], indirect=True)
async def test_a_waiting_call_fails_when_the_engine_crashes(case: Case) -> None:
    assert case.make_mortal is not None
    before = processes()
    engine = case.make_mortal()
    await engine.start()
    own = processes() - before
    for process in own:
        process.suspend()  # Else it might have answered before it is killed.
    waiting = asyncio.ensure_future(engine.score(PROMPTS, [400]))
    await asyncio.wait({waiting}, timeout=1)
    assert not waiting.done()
    for process in own:
        process.kill()
    with pytest.raises(case.death):
        await asyncio.wait_for(waiting, 60)
    if case.death is Fatal:
        with pytest.raises(Fatal):
            await asyncio.wait_for(engine.watch(), 60)
    await engine.close()
