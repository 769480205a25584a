"""A request that has no answer is refused alone: its neighbours have theirs, from the same calls to the engine."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from typing import Literal

import pytest

from workers.engines.ctranslate2 import CTranslate2Engine
from workers.engines.engine import Refused
from workers.guard.guard import Guard, Request
from workers.guard.load import checkpoint_folder
from workers.guard.tokens import Tokens

FOLDER = checkpoint_folder("guard-nano")
CULPRIT = "overflow"
Mode = Literal["score", "generate"]


class Overflowing(CTranslate2Engine):
    """Has NaN for every prompt that holds the culprit's text, and no completion."""

    def __init__(self) -> None:
        super().__init__(FOLDER, threads=1)
        self._tokens_of = Tokens(FOLDER)
        self.calls = 0

    def _is_culprit(self, prompt: Sequence[int]) -> bool:
        return CULPRIT in self._tokens_of.text(prompt)

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = math.inf
    ) -> list[list[float] | Refused]:
        self.calls += 1
        rows = await super().score(prompts, candidates, deadline)
        return [
            [math.nan] * len(candidates) if self._is_culprit(prompt) else row
            for prompt, row in zip(prompts, rows, strict=True)
        ]

    async def complete(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, deadline: float = math.inf
    ) -> list[list[int] | Refused]:
        self.calls += 1
        rows = await super().complete(prompts, max_tokens, deadline)
        return [[] if self._is_culprit(prompt) else row for prompt, row in zip(prompts, rows, strict=True)]


@pytest.fixture
async def engine() -> AsyncIterator[Overflowing]:
    engine = Overflowing()
    yield engine
    await engine.close()


@pytest.mark.parametrize("refused", [(20,), tuple(range(0, 256, 10))], ids=["one", "a tenth"])
@pytest.mark.parametrize(
    ("mode", "reason", "questions"), [("score", "no_number", 3), ("generate", "unreadable_answer", 1)]
)
async def test_refused_requests_cost_no_further_call_to_the_engine(
    engine: Overflowing, mode: Mode, reason: str, questions: int, refused: tuple[int, ...]
) -> None:
    guard = Guard(engine, FOLDER, "guard-nano", mode=mode)
    await guard.start()
    requests = [Request(f"have a lovely day in the garden {number}", "assistant") for number in range(256)]
    for index in refused:
        requests[index] = Request(f"an {CULPRIT} of numbers {index}", "assistant")
    engine.calls = 0
    answers = await guard.assess(requests)
    assert [index for index, answer in enumerate(answers) if isinstance(answer, Refused)] == list(refused)
    assert {answer.reason for answer in answers if isinstance(answer, Refused)} == {reason}
    assert engine.calls <= questions, "one call for each question, whoever is refused"
