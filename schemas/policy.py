"""A policy: how a tenant turns an assessment into a decision.

A mistyped field would silently allow what it should block: unknown fields are refused here, unlike in events.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.event import Id, Language, SchemaVersion
from schemas.taxonomy import Category, Decision, Role, Severity, Surface

MAX_RULES = 256


class Rule(BaseModel):
    """One line of a policy. A condition that is left out always holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    severity: Severity | None = None
    categories: Annotated[list[Category], Field(min_length=1)] | None = None
    surface: Surface | None = None
    role: Role | None = None
    language: Language | None = None
    """A BCP 47 tag: `en` also means `en-GB`. An event without a language never matches."""
    min_score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    """Least probability of the category where the rule names categories, of the severity elsewhere."""
    decision: Decision


class Policy(BaseModel):
    """One tenant's policy.

    For each category of the assessment the first rule that matches decides, else the severity's default; the strictest
    decision wins. An assessment without categories is decided once, by the rules that name none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: SchemaVersion = 1
    id: Id
    """The tenant's id, or a preset's name."""
    version: Annotated[int, Field(ge=0, lt=2**53)] = 0
    """Goes up with every change. 0: not stored yet, and the store gives the next one."""
    preset: str | None = None
    """A built-in policy to start from: its defaults hold where this document has none, and its rules come last."""
    safe: Decision = Decision.ALLOW
    controversial: Decision = Decision.BLOCK
    unsafe: Decision = Decision.BLOCK
    rules: Annotated[list[Rule], Field(max_length=MAX_RULES)] = []
    on_unavailable: Literal["hold", "review", "block"] = "review"
    """When no judgement can be had. `hold`: wait with back-off up to a limit, then review."""
    shared_cache: bool = False
    """Whether judgements of equal content may be shared with other tenants that also allow it."""
