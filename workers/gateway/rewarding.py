"""`/v1/reward`: the reward of completions, for a trainer that runs elsewhere. See docs/reward.md."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.taxonomy import Severity
from workers.errors import Fatal, OneAtFault, Unavailable
from workers.gateway.application import Client
from workers.gateway.judging import unavailable
from workers.gateway.problems import Problem, documented
from workers.reward.equations import Equation
from workers.reward.exchange import Exchange, read_exchange
from workers.reward.rewards import Assessor, Rewarded, rewards
from workers.settings import Batch

Score = Annotated[float, Field(allow_inf_nan=False)]


class Message(BaseModel):
    """A message of a prompt or of a completion."""

    # Other fields are kept: a completion with calls of tools has no reward.
    model_config = ConfigDict(frozen=True, extra="allow")

    role: str
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    """The thought of an assistant, as some model servers give it."""


Said = str | list[Message]


class RewardBody(BaseModel):
    """Completions, in the shapes in which TRL hands them to a reward function."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    prompts: Annotated[list[Said], Field(min_length=1)]
    """The prompt of each completion: a text, or messages."""
    completions: Annotated[list[Said], Field(min_length=1)]
    """As many completions as prompts. A thought stands before `</think>`, or in `reasoning_content`."""
    scores: list[Score | None] | None = None
    """With `hybrid`: the score of another reward model for each completion."""
    mode: Literal["guard", "hybrid"] = "guard"
    controversial: Literal["unsafe", "safe"] = "unsafe"
    """Whether Controversial counts as unsafe or as safe."""

    @model_validator(mode="after")
    def _check_lengths(self) -> RewardBody:
        if len(self.completions) != len(self.prompts):
            raise ValueError(f"completions: has {len(self.completions)} entries, and prompts has {len(self.prompts)}")
        if self.scores is not None and len(self.scores) != len(self.prompts):
            raise ValueError(f"scores: has {len(self.scores)} entries, and prompts has {len(self.prompts)}")
        if self.mode == "hybrid" and self.scores is None:
            raise ValueError("scores: the mode hybrid needs the score of another reward model for each completion")
        return self


class RewardResult(BaseModel):
    """The reward of one completion, and why."""

    reward: float | None
    """Null: it does not apply, and `problem` says why. A trainer leaves such a completion out."""
    thought: Severity | None
    answer: Severity | None
    refusal: bool | None
    problem: str | None


class RewardAnswer(BaseModel):
    """The rewards, in the order of the completions."""

    model: str
    results: list[RewardResult]


class Rewarding:
    """The route.

    The guard is asked without Redis and without policies: a trainer's completions are new, and belong to no tenant's
    users. `fail` ends the gateway if the engine does not recover.
    """

    def __init__(
        self,
        guard: Assessor,
        model: str,
        *,
        batch: Batch,
        answer_s: float,
        max_inputs: int,
        fail: Callable[[BaseException], None],
    ) -> None:
        self._guard = guard
        self._model = model
        self._batch = batch
        self._answer_s = answer_s
        self._max_inputs = max_inputs
        self._fail = fail
        self._tasks: set[asyncio.Task[list[Rewarded]]] = set()

    def router(self) -> APIRouter:
        """Give the route for the application."""
        router = APIRouter()

        @router.post("/v1/reward", responses=documented(), response_model=RewardAnswer)
        async def reward(_: Client, body: RewardBody) -> Any:
            """Give the reward of each completion."""
            if len(body.prompts) > self._max_inputs:
                raise Problem(
                    400,
                    f"prompts: has {len(body.prompts)} entries, and gateway.max_inputs allows {self._max_inputs}",
                    param="prompts",
                )
            found = await self._rewards(_exchanges(body), Equation(body.mode, body.controversial))
            return {"model": self._model, "results": [vars(one) for one in found]}

        return router

    async def _rewards(self, exchanges: Sequence[Exchange | OneAtFault], equation: Equation) -> list[Rewarded]:
        """Ask the guard. A call to the engine is never cancelled, because the engine would continue with it anyway.

        Raises:
            Problem: 503, if the engine is unavailable.
        """
        call = rewards(self._guard, exchanges, equation, self._batch, self._answer_s)
        task = asyncio.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        done, _ = await asyncio.wait([task], timeout=self._answer_s)
        if not done:
            raise unavailable()
        try:
            return task.result()
        except (Unavailable, Fatal) as error:
            raise unavailable() from error

    def _ended(self, task: asyncio.Task[list[Rewarded]]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Fatal):
            self._fail(error)


def _exchanges(body: RewardBody) -> list[Exchange | OneAtFault]:
    exchanges: list[Exchange | OneAtFault] = []
    for place, (prompt, completion) in enumerate(zip(body.prompts, body.completions, strict=True)):
        score = None if body.scores is None else body.scores[place]
        try:
            exchanges.append(read_exchange(_plain(prompt), _plain(completion), score))
        except OneAtFault as error:
            exchanges.append(error)
    return exchanges


def _plain(said: Said) -> str | list[dict[str, Any]]:
    return said if isinstance(said, str) else [message.model_dump(exclude_none=True) for message in said]
