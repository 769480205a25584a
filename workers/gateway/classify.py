"""`/v1/modelspecs` and `/v1/classify`, as ROOST's Pigeon has them: the guard is a signal of Coop and Osprey.

The shapes are those of github.com/roostorg/pigeon, `src/pigeon/schemas.py`. Pigeon's fixed classifiers have scores and
no decision: the rules of Coop and Osprey decide, so no policy of Guardline does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from schemas.event import MAX_CONTEXT_TURNS, TurnDict
from schemas.taxonomy import Category
from workers.gateway.application import Client
from workers.gateway.judging import Judging, Text, Verdict, harm_of
from workers.gateway.problems import Problem, documented

MODEL = "guardline"
"""The name by which a request means the guard, alone or as `guardline@VERSION`."""

HARMFUL, UNSAFE = "harmful", "unsafe"
LABELS: dict[str, str] = {
    HARMFUL: "Controversial or Unsafe",
    UNSAFE: "Unsafe",
    **{category.value.lower().replace(" & ", "-").replace(" ", "-"): category.value for category in Category},
}
"""The labels of the answer, and what people read for them."""

MAX_MESSAGES = 100
"""The most messages of a thread, as at Pigeon."""


class Label(BaseModel):
    """One score that the guard gives."""

    id: str
    display: str
    valueType: Literal["score"] = "score"  # noqa: N815 - the name in the contract


class ModelSpec(BaseModel):
    """A model, as Coop lists it among its signals."""

    id: str
    version: str
    """The digest of the checkpoint: it changes with the weights."""
    kind: Literal["classifier"] = "classifier"
    base: str | None = None
    modelId: str | None = None  # noqa: N815 - the name in the contract
    inputTypes: list[Literal["text"]] = ["text"]  # noqa: N815 - the name in the contract
    labels: list[Label]


class ModelSpecs(BaseModel):
    """The models: there is one."""

    modelspecs: list[ModelSpec]


class Message(BaseModel):
    """A message of the thread before the text."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    role: str | None = None
    """`assistant` for the answer of a model; every other role is a person."""
    text: str


class Thread(BaseModel):
    """The messages before the text, oldest first. The last 32 count."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    messages: Annotated[list[Message], Field(max_length=MAX_MESSAGES)] = []


class Context(BaseModel):
    """What belongs to the text."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    thread: Thread | None = None


class ClassifyInput(BaseModel):
    """What is classified."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: Annotated[str, Field(min_length=1)]
    mediaUrl: None = None  # noqa: N815 - the name in the contract
    """The guard reads text only, so a request with media is refused."""
    context: Context | None = None


class ClassifyBody(BaseModel):
    """A request."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str
    """`guardline`, or `guardline@VERSION` to be refused after the weights have changed."""
    input: ClassifyInput
    policy: None = None
    """The guard cannot be steered by the text of a policy, so a request with one is refused."""


class Score(BaseModel):
    """The score of a label."""

    label: str
    score: Annotated[float, Field(ge=0, le=1)]


class ClassifyAnswer(BaseModel):
    """All labels, with their scores."""

    model: str
    results: list[Score]


class Classifying:
    """The routes. `model` is `Guard.model`."""

    def __init__(self, judging: Judging, model: Mapping[str, str]) -> None:
        self._judging = judging
        self._model = model

    def router(self) -> APIRouter:
        """Give the routes for the application."""
        router = APIRouter()

        @router.get("/v1/modelspecs", responses=documented())
        async def modelspecs(_: Client) -> ModelSpecs:
            """List the guard, as Coop discovers it."""
            labels = [Label(id=label, display=display) for label, display in LABELS.items()]
            spec = ModelSpec(id=MODEL, version=self._model["revision"], modelId=self._model["name"], labels=labels)
            return ModelSpecs(modelspecs=[spec])

        @router.post("/v1/classify", responses=documented(404), response_model=ClassifyAnswer)
        async def classify(client: Client, body: ClassifyBody) -> Any:
            """Judge one text."""
            current = f"{MODEL}@{self._model['revision']}"
            if body.model not in (MODEL, current):
                raise Problem(
                    404,
                    f"model: {body.model} is not served here; `{current}` is, which GET /v1/modelspecs lists",
                    code="model_not_found",
                    param="model",
                )
            given = body.input
            thread = given.context and given.context.thread
            messages = thread.messages[-MAX_CONTEXT_TURNS:] if thread else []
            (verdict,) = await self._judging.judge(client.tenant, [Text(given.text, context=_turns(messages))])
            return {
                "model": current,
                "results": [{"label": label, "score": score} for label, score in scores_of(verdict).items()],
            }

        return router


def scores_of(verdict: Verdict) -> dict[str, float]:
    """Give the score of each label.

    The score of a category is the probability that the text is not safe, times the probability of the category.
    """
    assessment = verdict["assessment"]
    harm, probabilities = harm_of(assessment), assessment["category_scores"]
    scores = {label: harm * probabilities.get(display, 0.0) for label, display in LABELS.items()}
    return {**scores, HARMFUL: harm, UNSAFE: assessment["scores"]["unsafe"]}


def _turns(messages: list[Message]) -> tuple[TurnDict, ...]:
    return tuple(
        [
            TurnDict(role="assistant" if message.role == "assistant" else "user", text=message.text)
            for message in messages
        ]
    )
