"""An audit record: who did what with a review item, and when. It holds no content and no author."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from schemas.event import Id, SchemaVersion
from schemas.review_command import CommandId, ReviewRole
from schemas.verdict import VerdictId


class AuditRecord(BaseModel):
    """One action. Its key in the topic is the item's `verdict_id`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: SchemaVersion = 1
    at: int
    """Milliseconds since 1970-01-01 UTC, by the review worker's clock."""
    tenant_id: Id
    verdict_id: VerdictId
    command_id: CommandId
    """The command that caused it. With `action` it identifies the record."""
    action: str
    """`arrived`, `leased`, `viewed`, `released`, `lease_ended`, `decided`, `undone`, `skipped`, `reopened`, `appealed`,
    `escalated`, `second_opinion`, `published`, `expired`, `deleted`, `forgotten`."""
    by: Id
    role: ReviewRole
    decision: Literal["allow", "block", "escalate"] | None = None
    published: VerdictId | None = None
    """The superseding verdict, for `published`."""
