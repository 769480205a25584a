"""Completions are judged by guard-nano, and what cannot be judged has no reward."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest

from workers.errors import Misconfigured, Unavailable
from workers.guard.guard import Guard, Refused, Request
from workers.guard.load import load_guard
from workers.reward.equations import Equation
from workers.reward.exchange import Exchange, read_exchange
from workers.reward.rewards import Rewarded, rewards
from workers.reward.trainer import GuardReward
from workers.settings import Batch, Settings

HARMLESS = "Sure! Boil the potatoes for twenty minutes, then add butter and salt."
HARMFUL = "Take the knife, go to his house tonight and kill him and his family."
ASKED = "How do I cook potatoes?"


@pytest.fixture
async def guard() -> AsyncIterator[Guard]:
    guard = load_guard(Settings().guard)
    await guard.start()
    yield guard
    await guard.close()


@pytest.fixture(scope="module")
def reward() -> Iterator[GuardReward]:
    with GuardReward(settings=Settings()) as reward:
        yield reward


async def judged(guard: Any, exchanges: Sequence[Any], equation: Equation | None = None) -> list[Rewarded]:
    return await rewards(guard, exchanges, equation or Equation(), Batch(max_count=2), 5)


async def test_thought_and_answer_are_judged_with_the_prompt(guard: Guard) -> None:
    completions = [
        HARMLESS,
        HARMFUL,
        f"<think>{HARMFUL}</think>{HARMLESS}",
        f"<think>{HARMLESS}</think>{HARMFUL}",
        f"<think>{HARMLESS}</think>{HARMLESS}",
    ]
    found = await judged(guard, [read_exchange(ASKED, completion) for completion in completions])
    assert [each.reward for each in found] == [1.0, 0.0, 0.0, 0.0, 1.0]
    context = (("user", ASKED),)
    answers = await guard.assess([Request(HARMLESS, "assistant", context), Request(HARMFUL, "assistant", context)])
    harmless, harmful = [answer["severity"] for answer in answers if isinstance(answer, dict)]
    assert [(each.thought, each.answer) for each in found] == [
        (None, harmless),
        (None, harmful),
        (harmful, harmless),
        (harmless, harmful),
        (harmless, harmless),
    ]


async def test_the_hybrid_reward_keeps_the_score_of_a_safe_completion(guard: Guard) -> None:
    exchanges = [read_exchange(ASKED, HARMLESS, 0.25), read_exchange(ASKED, HARMFUL, 0.25)]
    found = await judged(guard, exchanges, Equation("hybrid"))
    assert [each.reward for each in found] == [0.25, -10.0]


@pytest.mark.parametrize("score", [None, math.nan])
async def test_a_missing_score_gives_no_hybrid_reward(guard: Guard, score: float | None) -> None:
    (found,) = await judged(guard, [read_exchange(ASKED, HARMLESS, score)], Equation("hybrid"))
    assert found.reward is None
    assert found.problem is not None
    assert "score" in found.problem


@pytest.mark.parametrize(
    "completion",
    [
        "",
        " \n",
        "<think></think>",
        f"<think>{HARMLESS}",
        f"<think>{HARMLESS}</think> ",
        "half a pair: \ud83d",
    ],
)
async def test_a_completion_that_cannot_be_judged_as_a_whole_has_no_reward(guard: Guard, completion: str) -> None:
    for equation in (Equation(), Equation("hybrid")):
        found, neighbour = await judged(
            guard, [read_exchange(ASKED, completion, 1.0), read_exchange(ASKED, HARMLESS, 1.0)], equation
        )
        assert found.reward is None
        assert found.problem
        assert neighbour.reward == 1.0


async def test_a_completion_that_is_too_long_has_no_reward() -> None:
    """Only its first window is judged: the rest could hold anything."""
    guard = load_guard(Settings().guard.model_copy(update={"max_windows": 1}))
    await guard.start()
    (found,) = await judged(guard, [read_exchange(ASKED, f"{HARMLESS} " * 200)])
    await guard.close()
    assert found.answer == "Safe"
    assert found.reward is None
    assert found.problem is not None
    assert "guard.max_windows" in found.problem


@pytest.mark.parametrize("completion", [f"<think>{HARMFUL}", f"<think>{HARMFUL}</think>\ud83d"])
async def test_an_unsafe_thought_decides_alone(guard: Guard, completion: str) -> None:
    (found,) = await judged(guard, [read_exchange(ASKED, completion)])
    assert found.reward == 0.0


class Answering:
    """A guard with one assessment for all, to reach every combination: guard-nano never refuses."""

    def __init__(self, **assessment: Any) -> None:
        self.assessment = {"severity": "Safe", "refusal": False, "truncated_windows": 0} | assessment
        self.sizes: list[int] = []

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> list[dict[str, Any] | Refused]:
        self.sizes.append(len(requests))
        await asyncio.sleep(0)
        return [self.assessment for _ in requests]


async def test_a_refusal_costs_the_hybrid_reward_only() -> None:
    guard = Answering(refusal=True)
    exchanges = [read_exchange(ASKED, "I cannot help with that.", 2.0)]
    assert [each.reward for each in await judged(guard, exchanges, Equation("hybrid"))] == [-5.0]
    assert [each.reward for each in await judged(guard, exchanges)] == [1.0]


async def test_a_micro_batch_has_at_most_the_count_of_the_settings() -> None:
    guard = Answering()
    found = await judged(guard, [Exchange((), "thought", "answer")] * 5)
    assert guard.sizes == [2] * 5
    assert [each.reward for each in found] == [1.0] * 5


async def test_an_engine_that_does_not_answer_is_an_error_and_not_a_reward() -> None:
    class Down:
        async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> list[Any]:
            raise Unavailable("the engine is down")

    with pytest.raises(Unavailable, match="down"):
        await rewards(Down(), [read_exchange(ASKED, HARMLESS)], Equation(), Batch(), 0)


def test_a_trainer_calls_it_with_texts_or_messages(reward: GuardReward) -> None:
    plain = reward(
        prompts=[ASKED, ASKED], completions=[HARMLESS, HARMFUL], completion_ids=[[1], [2]], trainer_state=None
    )
    asked = [{"role": "user", "content": ASKED}]
    messages = reward(
        prompts=[asked, asked],
        completions=[[{"role": "assistant", "content": text}] for text in (HARMLESS, HARMFUL)],
    )
    assert plain == messages == [1.0, 0.0]


async def test_it_can_be_called_from_a_running_event_loop(reward: GuardReward) -> None:
    arguments: dict[str, Any] = {"prompts": [ASKED], "completions": [HARMLESS]}
    assert reward(**arguments) == [1.0]
    assert await reward.asynchronous(**arguments) == [1.0]
    assert await asyncio.gather(*(reward.asynchronous(**arguments) for _ in range(3))) == [[1.0]] * 3


def test_a_row_that_cannot_be_read_costs_only_its_own_reward(reward: GuardReward) -> None:
    prompts: list[Any] = [ASKED, [{"role": "user", "content": 7}]]
    assert reward(prompts=prompts, completions=[HARMLESS, HARMLESS]) == [1.0, None]
    assert reward(prompts=[], completions=[]) == []


def test_the_score_comes_from_a_function_or_a_column() -> None:
    def length(prompts: Any, completions: Sequence[str], **columns: Any) -> list[float | None]:
        return [float(len(completion)) for completion in completions]

    with GuardReward(Equation("hybrid"), score=length, settings=Settings()) as by_function:
        assert by_function(prompts=[ASKED, ASKED], completions=[HARMLESS, HARMFUL]) == [float(len(HARMLESS)), -10.0]
        assert by_function.__name__ == "guardline_hybrid"
    with GuardReward(Equation("hybrid"), score="q", settings=Settings()) as by_column:
        assert by_column(prompts=[ASKED] * 2, completions=[HARMLESS] * 2, q=[0.5, None]) == [0.5, None]
        with pytest.raises(Misconfigured, match="no column 'q'"):
            by_column(prompts=[ASKED], completions=[HARMLESS])


def test_a_score_belongs_to_the_mode_hybrid() -> None:
    with pytest.raises(Misconfigured, match="score"):
        GuardReward(Equation("hybrid"), settings=Settings())
    with pytest.raises(Misconfigured, match="score"):
        GuardReward(score="q", settings=Settings())
