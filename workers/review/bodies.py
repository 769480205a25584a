"""The bodies of requests. They are strict: a mistyped field is refused, and a number in quotes is no number."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schemas.event import Id, Language, TurnText
from schemas.taxonomy import Category, Role, Severity
from schemas.verdict import Note, VerdictId
from workers.review.views import ItemSummary, QueueView
from workers.settings.review_sections import NAME

Key = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[!-~]+$")]
"""The header `Idempotency-Key`."""

PERSON = rf"^{NAME}$"
"""A person of another system is named as a token is: the verdict joins the names of people by commas."""

MAX_NARROWED = 64


class Body(BaseModel):
    """What all bodies have in common."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class NextBody(Body):
    """Which items the person wants. Empty lists: all that the token shows."""

    tenants: Annotated[list[Id], Field(max_length=MAX_NARROWED)] = []
    languages: Annotated[list[Language], Field(max_length=MAX_NARROWED)] = []


class DecideBody(Body):
    """A decision, with its reason and what the person found instead of the model's assessment."""

    decision: Literal["allow", "block", "escalate"]
    note: Note | None = None
    severity: Annotated[Severity, Field(strict=False)] | None = None
    categories: Annotated[list[Annotated[Category, Field(strict=False)]], Field(max_length=9)] | None = None
    person: Annotated[str, Field(pattern=PERSON)] | None = None
    """Only for the role `service`: the person of the other system who decided."""


class ReopenBody(Body):
    """Why a decided item is put back."""

    note: Note | None = None


class TurnBody(Body):
    """What came before the content."""

    role: Annotated[Role, Field(strict=False)]
    text: TurnText


class AppealBody(Body):
    """An appeal against the newest verdict on an event."""

    verdict_id: VerdictId
    reason: Annotated[str, Field(min_length=1, max_length=2_000)]
    """Why, as the reviewers read it. It is kept with the item and is in no verdict."""
    verdict: dict[str, JsonValue] | None = None
    """The verdict's record, as in `schemas/json/verdict.schema.json`, if it never went to review."""
    key: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """The key of the verdict's record, required with `verdict`. The superseding verdict has the same."""
    text: Annotated[str, Field(max_length=65_536)] | None = None
    """The content, if the worker does not have it any more."""
    context: Annotated[list[TurnBody], Field(max_length=32)] = []


class QueuesAnswer(BaseModel):
    """The queues that the token shows."""

    queues: list[QueueView]


class LeasesAnswer(BaseModel):
    """The items that the person has on lease, the oldest lease first."""

    items: list[ItemSummary]


class ErrorAnswer(BaseModel):
    """Why a request was refused. `by` and `at` say who was first, and when."""

    detail: str
    by: str | None = None
    at: int | None = None
