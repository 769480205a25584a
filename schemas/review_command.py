"""A review command: one change that a person, a system or the review worker itself wants of one review item."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from schemas.event import Id, SchemaVersion, Turn
from schemas.review import ReviewItem
from schemas.taxonomy import Category, Severity
from schemas.verdict import Note, Verdict, VerdictId

MAX_CONTEXT_TURNS = 64

CommandId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class CommandKind(StrEnum):
    """What a command does. The last six are the worker's own."""

    LEASE = "lease"
    RELEASE = "release"
    VIEW = "view"
    DECIDE = "decide"
    UNDO = "undo"
    SKIP = "skip"
    REOPEN = "reopen"
    APPEAL = "appeal"
    ARRIVE = "arrive"
    SETTLE = "settle"
    END_LEASE = "end_lease"
    EXPIRE = "expire"
    FORGET = "forget"
    REPUBLISH = "republish"


class ReviewRole(StrEnum):
    """What somebody may do. `system` is the review worker itself; no token has this role."""

    REVIEWER = "reviewer"
    SENIOR = "senior"
    AUDITOR = "auditor"
    SERVICE = "service"
    SYSTEM = "system"


class ReviewCommand(BaseModel):
    """One command. Its key in the topic is the item's `verdict_id`, so all commands of an item are in one order.

    The worker applies a command once, whatever the number of records with its `command_id`, within the steps that the
    item's history keeps.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: SchemaVersion = 1
    command_id: CommandId
    verdict_id: VerdictId
    """The item: the first verdict on the event that the review worker knows."""
    kind: CommandKind
    by: Id
    """Who gives the command: the name of a token, with `TOKEN:PERSON` for a person of another system."""
    role: ReviewRole
    at: int
    """When the command was given, in milliseconds since 1970-01-01 UTC. The worker does not decide by this time."""
    decision: Literal["allow", "block", "escalate"] | None = None
    """For `decide`."""
    note: Note | None = None
    """For `decide`: the reason, which the superseding verdict repeats. For `reopen` and `appeal`: why."""
    severity: Severity | None = None
    """For `decide`: the severity that the person found, if it is not the model's."""
    categories: list[Category] | None = None
    """For `decide`: the categories that the person found, if they are not the model's."""
    item: ReviewItem | None = None
    """For `arrive`: the item."""
    verdict: Verdict | None = None
    """For `appeal` on a verdict of which the worker has no item."""
    key: str | None = None
    """For `appeal` with `verdict`, required: the key of the verdict's record. The superseding verdict has it too."""
    text: str | None = None
    """For `appeal`: the content, if the worker does not have it any more."""
    context: Annotated[list[Turn], Field(max_length=MAX_CONTEXT_TURNS)] = []
    """For `appeal`: what came before the content, oldest first."""

    @model_validator(mode="after")
    def _check(self) -> "ReviewCommand":
        if self.kind is CommandKind.DECIDE and self.decision is None:
            raise ValueError("a command of the kind decide needs a decision: allow, block or escalate")
        if self.kind is CommandKind.ARRIVE and self.item is None:
            raise ValueError("a command of the kind arrive needs an item")
        return self
