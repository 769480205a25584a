"""`/v1/moderations`: what a client of OpenAI's moderation sends and gets, with the guard and the tenant's policy.

It must never say that a text is not flagged which was not judged: images are refused, and without the engine the answer
is 503. docs/gateway.md has the table of the categories.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, field_validator

from schemas.assessment import ModelReference, SeverityScores
from schemas.event import MAX_CONTEXT_TURNS, Language, TurnDict, TurnText
from schemas.taxonomy import Category, Decision, Role, Severity, Surface
from schemas.verdict import PolicyReference
from workers.gateway.application import Client
from workers.gateway.judging import Judging, Text, Verdict, harm_of
from workers.gateway.problems import Problem, documented

OpenAICategory = Literal[
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
]

FOUND_AS: dict[Category, OpenAICategory] = {
    Category.VIOLENT: "violence",
    Category.NON_VIOLENT_ILLEGAL_ACTS: "illicit",
    Category.SEXUAL_CONTENT: "sexual",
    Category.SUICIDE_AND_SELF_HARM: "self-harm",
    Category.UNETHICAL_ACTS: "harassment",
}
"""The categories of the guard for which OpenAI has one. PII, politically sensitive topics, copyright and jailbreaks
have none: such a text is flagged, and all of OpenAI's categories are false."""

OPENAI_CATEGORIES: tuple[OpenAICategory, ...] = OpenAICategory.__args__  # type: ignore[attr-defined]
JUDGED = frozenset(FOUND_AS.values())
"""The categories of OpenAI that the guard judges. The others are always false, and apply to no input."""

NO_IMAGES = (
    "part {} is of the type image_url, which cannot be judged: the guard reads text only. Nothing was judged: "
    "leave the image out, and judge it with another model"
)


class TextPart(BaseModel):
    """A part of an input that is a text."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: Literal["text"]
    text: str


class EarlierTurn(BaseModel):
    """A turn before the texts."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    role: Role
    text: TurnText


class RequestExtension(BaseModel):
    """What OpenAI's API does not know. With the client `openai`: `extra_body={"guardline": {...}}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    surface: Surface = Surface.CHAT
    role: Role = Role.USER
    """Who wrote the texts: `assistant` for the answer of a model."""
    language: Language | None = None
    context: Annotated[list[EarlierTurn], Field(max_length=MAX_CONTEXT_TURNS)] = []
    """The turns before the texts, oldest first."""


NO_EXTENSION = RequestExtension()


class ModerationBody(BaseModel):
    """A request. Fields that are not named here are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    input: str | Annotated[list[str], Field(min_length=1)] | Annotated[list[TextPart], Field(min_length=1)]
    """A text, a list of texts, or the parts of one text. Each text has a result; the parts have one together."""
    model: str | None = None
    """Is accepted and has no effect: `guard.model` judges."""
    guardline: RequestExtension = NO_EXTENSION

    @field_validator("input", mode="before")
    @classmethod
    def _refuse_images(cls, given: object) -> object:
        for place, part in enumerate(given if isinstance(given, list) else ()):
            if isinstance(part, dict) and part.get("type") == "image_url":
                raise ValueError(NO_IMAGES.format(place))
        return given

    def texts(self) -> list[str]:
        """Give the texts of which each has a result."""
        if isinstance(self.input, str):
            return [self.input]
        texts = [part for part in self.input if isinstance(part, str)]
        return texts or ["\n".join(part.text for part in self.input if isinstance(part, TextPart))]


class ResultExtension(BaseModel):
    """What the guard says of a text, and what the tenant's policy decides."""

    decision: Decision
    reasons: list[str]
    policy: PolicyReference
    severity: Severity | None
    """Null: the text could not be judged, or is empty. `reasons` says which."""
    categories: list[Category]
    refusal: bool | None
    """Whether an assistant refused; null for a user's text."""
    scores: SeverityScores | None
    category_scores: dict[Category, float]
    language: str | None
    model: ModelReference | None
    truncated_text_chars: int
    """The number of characters that were not judged, out of the middle of a text that is too long."""
    truncated_windows: int
    """The number of windows that were not judged because the text is too long."""
    truncated_context_tokens: int
    """The number of tokens of earlier turns that were left out, the oldest first."""


class Result(BaseModel):
    """The result of one text."""

    flagged: bool
    """Whether the tenant's policy decides anything but `allow`."""
    categories: dict[OpenAICategory, bool]
    """True for the categories that the guard names, if the text is flagged."""
    category_scores: dict[OpenAICategory, float]
    """The probability that the text is not safe, times the probability of the category."""
    category_applied_input_types: dict[OpenAICategory, list[Literal["text"]]]
    """Empty for the categories that the guard does not know."""
    guardline: ResultExtension


class ModerationAnswer(BaseModel):
    """The results, in the order of the texts."""

    id: str
    model: str
    """The name of the guard's model."""
    results: list[Result]


class Moderations:
    """The route."""

    def __init__(self, judging: Judging, model: str, max_inputs: int) -> None:
        self._judging = judging
        self._model = model
        self._max_inputs = max_inputs

    def router(self) -> APIRouter:
        """Give the route for the application."""
        router = APIRouter()

        @router.post("/v1/moderations", responses=documented(), response_model=ModerationAnswer)
        async def moderations(client: Client, body: ModerationBody) -> Any:
            """Judge one or more texts."""
            texts = body.texts()
            if len(texts) > self._max_inputs:
                raise Problem(
                    400,
                    f"input: has {len(texts)} texts, and gateway.max_inputs allows {self._max_inputs}",
                    param="input",
                )
            own = body.guardline
            context = tuple([TurnDict(role=turn.role.value, text=turn.text) for turn in own.context])
            verdicts = await self._judging.judge(
                client.tenant,
                [Text(text, own.surface.value, own.role.value, own.language, context) for text in texts],
            )
            return {
                "id": f"modr-{secrets.token_hex(16)}",
                "model": self._model,
                "results": [result_of(verdict) for verdict in verdicts],
            }

        return router


def result_of(verdict: Verdict) -> dict[str, Any]:
    """Give the result of a verdict."""
    flagged = verdict["decision"] != Decision.ALLOW.value
    assessment: dict[str, Any] = verdict["assessment"] or {}
    harm = harm_of(verdict["assessment"])
    named: dict[str, bool] = dict.fromkeys(OPENAI_CATEGORIES, False)
    scored: dict[str, float] = dict.fromkeys(OPENAI_CATEGORIES, 0.0)
    found, probabilities = assessment.get("categories", []), assessment.get("category_scores", {})
    for category, name in FOUND_AS.items():
        named[name] = flagged and category.value in found
        scored[name] = harm * probabilities.get(category.value, 0.0)
    return {
        "flagged": flagged,
        "categories": named,
        "category_scores": scored,
        "category_applied_input_types": {name: ["text"] if name in JUDGED else [] for name in OPENAI_CATEGORIES},
        "guardline": {
            "decision": verdict["decision"],
            "reasons": verdict["reasons"],
            "policy": verdict["policy"],
            "severity": assessment.get("severity"),
            "categories": found,
            "refusal": assessment.get("refusal"),
            "scores": assessment.get("scores"),
            "category_scores": probabilities,
            "language": verdict["language"],
            "model": assessment.get("model"),
            "truncated_text_chars": verdict["truncated_text_chars"],
            "truncated_windows": assessment.get("truncated_windows", 0),
            "truncated_context_tokens": assessment.get("truncated_context_tokens", 0),
        },
    }
