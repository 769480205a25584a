"""A prompt that the model has no numbers or no words for has no answer, and its neighbours have theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import pytest

from workers.engines.ctranslate2 import CTranslate2Engine
from workers.errors import Unjudgeable
from workers.guard.guard import Guard, Request
from workers.guard.load import checkpoint_folder
from workers.guard.patience import ask_with_patience
from workers.guard.tokens import Tokens

FOLDER = checkpoint_folder("guard-nano")
CULPRIT = "overflow"


class Overflowing(CTranslate2Engine):
    """Has NaN for every prompt that holds the culprit's text, and no completion."""

    def __init__(self) -> None:
        super().__init__(FOLDER, threads=1)
        self._tokens_of = Tokens(FOLDER)
        self.calls = 0

    def _is_culprit(self, prompt: Sequence[int]) -> bool:
        return CULPRIT in self._tokens_of.text(prompt)

    async def score(self, prompts: Sequence[Sequence[int]], candidates: Sequence[int]) -> list[list[float]]:
        self.calls += 1
        rows = await super().score(prompts, candidates)
        return [
            [math.nan] * len(row) if self._is_culprit(prompt) else row
            for prompt, row in zip(prompts, rows, strict=True)
        ]

    async def complete(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        self.calls += 1
        rows = await super().complete(prompts, max_tokens)
        return [[] if self._is_culprit(prompt) else row for prompt, row in zip(prompts, rows, strict=True)]


@pytest.mark.parametrize(("mode", "reason"), [("score", "no_number"), ("generate", "unreadable_answer")])
async def test_a_prompt_without_an_answer_takes_none_from_its_neighbours(
    mode: Literal["score", "generate"], reason: str
) -> None:
    engine = Overflowing()
    guard = Guard(engine, FOLDER, "guard-nano", mode=mode)
    await guard.start()
    requests = [Request(f"have a lovely day in the garden {number}") for number in range(64)]
    requests[20] = Request(f"an {CULPRIT} of numbers")
    engine.calls = 0
    answers = await ask_with_patience(guard.assess, requests, lambda asked_s: 30 - asked_s)
    refused = answers.pop(20)
    assert isinstance(refused, Unjudgeable)
    assert refused.reason == reason
    assert all(isinstance(answer, dict) for answer in answers)
    # Two halves at each of six levels, after the whole; a score may have a second question.
    assert engine.calls <= 2 * 13
    await guard.close()
