"""A policy: how a tenant turns an assessment into a decision.

Unknown fields are refused, unlike in events, because a mistyped field would silently allow what it should block.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.event import Id, Language, SchemaVersion
from schemas.taxonomy import Category, Decision, Role, Severity, Surface

MAX_RULES = 256


class Rule(BaseModel):
    """One rule of a policy. A missing condition always holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    severity: Severity | None = None
    categories: Annotated[list[Category], Field(min_length=1)] | None = None
    surface: Surface | None = None
    role: Role | None = None
    language: Language | None = None
    """A BCP 47 tag: `en` also means `en-GB`. An event without a language never matches."""
    min_score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    """The lowest probability for which the rule matches: of the category if the rule names categories, otherwise of the
    severity."""
    decision: Decision


class Policy(BaseModel):
    """One tenant's policy.

    For each category of the assessment, the first matching rule decides, or the severity's default if no rule matches.
    The strictest of these decisions counts. For an assessment without categories, only rules without categories match.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: SchemaVersion = 1
    id: Id
    """The tenant's id, or a preset's name."""
    version: Annotated[int, Field(ge=0, lt=2**53)] = 0
    """Increases with every change. 0: not stored yet; the store assigns the next version."""
    preset: str | None = None
    """A built-in policy to start from: its defaults apply to missing fields, and its rules come last."""
    safe: Decision = Decision.ALLOW
    controversial: Decision = Decision.BLOCK
    unsafe: Decision = Decision.BLOCK
    rules: Annotated[list[Rule], Field(max_length=MAX_RULES)] = []
    on_unavailable: Literal["hold", "review", "block"] = "review"
    """The decision if the event cannot be judged. `hold`: retry with back-off up to a limit, then review."""
    shared_cache: bool = False
    """Whether assessments of equal content may be shared with other tenants that also allow it."""
