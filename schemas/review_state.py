"""The state of a review item, as the review worker keeps it in its compacted topic. The key is the `verdict_id`."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from schemas.event import Id, Language, SchemaVersion, Turn
from schemas.review_command import CommandId, ReviewRole
from schemas.taxonomy import Category, Decision, Severity
from schemas.verdict import VerdictId


class ReviewStatus(StrEnum):
    """What an item waits for, or how it ended."""

    OPEN = "open"
    SECOND_OPINION = "second_opinion"
    """One person has decided, and the tenant's policy wants two."""
    ESCALATED = "escalated"
    """It waits for a person with the role `senior`."""
    REOPENED = "reopened"
    APPEALED = "appealed"
    DECIDED = "decided"
    CLOSED = "closed"
    """Its time was over, or its author was forgotten, before anybody decided."""


class ReviewLease(BaseModel):
    """Somebody looks at the item now, and nobody else gets it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    by: Id
    command_id: CommandId
    since: int
    until: int
    """Heartbeats move this time only in the worker's memory. After a restart each lease has its full length again."""


class ReviewOpinion(BaseModel):
    """What one person decided."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    by: Id
    role: ReviewRole
    command_id: CommandId
    at: int
    decision: Literal["allow", "block", "escalate"]
    note: str | None = None
    severity: Severity | None = None
    categories: list[Category] | None = None


class ReviewStep(BaseModel):
    """One applied command."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: int
    action: str
    by: Id
    role: ReviewRole
    command_id: CommandId
    decision: str | None = None


class ReviewContent(BaseModel):
    """What was judged."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: str
    context: list[Turn] = []
    attributes: dict[str, JsonValue] = {}


class ReviewState(BaseModel):
    """One item. All times are in milliseconds since 1970-01-01 UTC."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: SchemaVersion = 1
    verdict_id: VerdictId
    tenant_id: Id
    language: Language | None = None
    status: ReviewStatus
    key: str
    """The key of the item's record, in Base64: the superseding verdict has it too. The item's id once the author was
    forgotten."""
    opened_at: int
    waiting_since: int
    """When the item was opened, reopened or appealed."""
    due_at: int
    """The deadline by the tenant's policy."""
    turn_at: int
    """The place in the queue: the items with the earliest times come first. See docs/review.md#the-order-of-items."""
    expires_at: int | None = None
    """When the item loses its content, or is deleted if it has none."""
    four_eyes: bool = False
    lease: ReviewLease | None = None
    pending: ReviewOpinion | None = None
    """A decision that can still be undone."""
    settles_at: int | None = None
    """When `pending` takes effect."""
    opinions: list[ReviewOpinion] = []
    """What people decided since the item was opened, reopened or appealed."""
    deciders: list[Id] = []
    """Who decided before the item was reopened or appealed."""
    skipped_by: list[Id] = []
    history: list[ReviewStep] = []
    current: VerdictId
    """The newest verdict on the event."""
    current_decision: Decision
    appeal: str | None = None
    """Why somebody appealed. Null once the author was forgotten."""
    closed_because: str | None = None
    verdict: dict[str, Any]
    """The first verdict that the worker knows, without its text."""
    content: ReviewContent | None = None
    """Null once the item has lost its content."""
    settled: Annotated[list[ReviewOpinion], Field(max_length=16)] = []
    """The opinions that made the newest superseding verdict."""
    previous: VerdictId | None = None
    """The verdict that the newest superseding verdict replaces."""
    previous_decision: Decision | None = None
    published: list[VerdictId] = []
    """All superseding verdicts of the item, the newest last. An appeal may name any of them."""
