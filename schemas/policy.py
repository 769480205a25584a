"""A policy: how a tenant turns an assessment into a decision.

Unknown fields are refused, unlike in events, because a mistyped field would silently allow what it should block.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from schemas.event import Id, Language, SchemaVersion
from schemas.taxonomy import Category, Decision, Role, Severity, Surface

MAX_RULES = 256
MAX_THRESHOLDS = 16
MAX_STRIKE_HOURS = 24 * 366


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
    min_strikes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """The lowest number of the author's strikes for which the rule matches. If the strikes are not known, because the
    event has no author or Redis does not answer, the rule does not match."""
    decision: Decision


class StrikeWeight(BaseModel):
    """How many strikes a verdict counts. The first entry that matches counts; without one, none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    severity: Severity | None = None
    """Null: any severity."""
    categories: Annotated[list[Category], Field(min_length=1)] | None = None
    """Null: any category."""
    weight: Annotated[float, Field(ge=0, le=1_000, allow_inf_nan=False)]


class StrikeThreshold(BaseModel):
    """A number of strikes at which the aggregates worker sends a signal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Id
    """What the signal calls the threshold."""
    at: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """The signal is raised when the author's strikes reach this number."""
    clear_below: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """The signal is cleared when the strikes fall below this number. It must be at most `at`. Null: half of `at`."""

    @model_validator(mode="after")
    def _check_levels(self) -> "StrikeThreshold":
        if self.clear_below is not None and self.clear_below > self.at:
            raise ValueError(f"clear_below ({self.clear_below:g}) must be at most at ({self.at:g})")
        return self


class Strikes(BaseModel):
    """How an author's verdicts add up to strikes. Verdicts of `allow` count none, and duplicates count none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: Annotated[list[StrikeWeight], Field(max_length=MAX_RULES)] = [
        StrikeWeight(severity=Severity.UNSAFE, weight=1)
    ]
    """By default each Unsafe verdict that is not allowed counts one."""
    window_hours: Annotated[float, Field(gt=0, le=MAX_STRIKE_HOURS, allow_inf_nan=False)] | None = None
    """A strike counts for this long, and then no more."""
    half_life_hours: Annotated[float, Field(gt=0, le=MAX_STRIKE_HOURS, allow_inf_nan=False)] | None = None
    """A strike counts half after this time, a quarter after twice this time. Only one of the two may be set; without
    both, a window of 720 hours applies."""
    thresholds: Annotated[list[StrikeThreshold], Field(max_length=MAX_THRESHOLDS)] = []

    @model_validator(mode="after")
    def _check(self) -> "Strikes":
        if self.window_hours is not None and self.half_life_hours is not None:
            raise ValueError("window_hours and half_life_hours are both set: set one of the two")
        names = [threshold.name for threshold in self.thresholds]
        if len(set(names)) < len(names):
            raise ValueError("thresholds: two of them have the same name")
        return self


class ReviewRules(BaseModel):
    """How people review what the policy sends to review."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sla_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """The time within which an item should be decided, counted from its verdict. Null: the worker's setting."""
    four_eyes: list[Category] = []
    """The categories for which two people have to decide alike, found by the model or by the first person."""
    retention_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """How long an item that nobody decides is kept with its content. Null: the worker's setting."""


class HoldBack(BaseModel):
    """How much of an answer waits for its judgement before it is shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    until: Literal["none", "tokens", "sentence", "all"] = "tokens"
    """`none`: text is shown at once, and a cut takes back what it can. `tokens`: a token is shown when it and the next
    `tokens` ones are judged. `sentence`: a sentence is shown when all of it is judged. `all`: the whole answer is shown
    at its end. With all but `none`, tokens that may still lead to a cut wait: those of a run that `cut_unsafe` or
    `cut_controversial` counts."""
    tokens: Annotated[int, Field(ge=0, le=1_024)] = 0
    """With `tokens`: how many more tokens have to be judged."""

    @model_validator(mode="after")
    def _check_tokens(self) -> "HoldBack":
        if self.tokens and self.until != "tokens":
            raise ValueError(
                f"stream.hold_back.tokens ({self.tokens}) has an effect only with until: tokens: leave it out"
            )
        return self


class StreamPolicy(BaseModel):
    """How an answer is moderated while it is written. Only with `guardline worker streams` and `guardline gateway`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cut_prompt: Literal["unsafe", "controversial"] | None = "unsafe"
    """The mildest severity of the user's turn that ends the stream before the answer. Null: no severity does."""
    cut_unsafe: Annotated[int, Field(ge=1, le=1_024)] | None = 2
    """How many positions in a row have to be Unsafe. 2 is the rule of Qwen3Guard's report. Null: they do not count."""
    cut_controversial: Annotated[int, Field(ge=1, le=1_024)] | None = None
    """How many positions in a row have to be Controversial or Unsafe. Null: they do not count."""
    threshold: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    """A position counts as Unsafe if the probability of Unsafe is at least this, and as Controversial or Unsafe if the
    sum of both is. Null: the checkpoint's recommended threshold, or the most likely severity if it has none."""
    mean_weight: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    """The weight of the newest position in an exponential mean of the probability of Unsafe. Null: no mean."""
    mean_threshold: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.5
    """With `mean_weight`: the stream is cut where the mean reaches this."""
    hold_back: HoldBack = HoldBack()
    replacement: Annotated[str, StringConstraints(max_length=2_000)] = ""
    """What is shown in the place of the rest of an answer that was cut."""
    on_unavailable: Literal["cut", "allow"] = "cut"
    """What happens with a stream that cannot be judged. `allow` shows the rest unjudged, and every verdict says so."""


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
    strikes: Strikes | None = None
    """How the tenant counts strikes. Null: nobody counts any."""
    review: ReviewRules = ReviewRules()
    stream: StreamPolicy = StreamPolicy()
