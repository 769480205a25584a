"""An assessment: what the model says of a text, before any tenant's policy."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from schemas.taxonomy import Category, Severity

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class SeverityScores(BaseModel):
    """The probability of each severity; they add up to 1."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    safe: Probability
    controversial: Probability
    unsafe: Probability


class ModelReference(BaseModel):
    """The model that judged. An assessment may be reused only if all three fields are equal."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    revision: str
    template_hash: str


class View(BaseModel):
    """The model's result for one reading of a text."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    """`raw`: the text as it is. `normalized`: the text as a person reads it, with disguises undone."""
    severity: Severity
    scores: SeverityScores


class Assessment(BaseModel):
    """What the model says of one text."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    severity: Severity
    categories: list[Category]
    refusal: bool | None
    """Whether an assistant refused; null for a user's text."""
    scores: SeverityScores
    category_scores: dict[Category, Probability]
    model: ModelReference
    windows: Annotated[int, Field(ge=1)]
    """The number of overlapping windows that were judged, in all views together; the worst one counts."""
    truncated_windows: Annotated[int, Field(ge=0)]
    """The number of windows that were not judged because the text was too long. 0: all of it was judged."""
    truncated_context_tokens: Annotated[int, Field(ge=0)]
    """The number of tokens of earlier turns that were left out, the oldest first. 0: none was left out."""
    tokens: Annotated[int, Field(ge=0)] = 0
    """The number of tokens that the model read and wrote, in the prompts of all windows, views and further questions.
    0 in assessments of versions that did not count them."""
    views: Annotated[list[View], Field(min_length=1)]
    """The readings that were judged. A text has a normalized view only if it differs from the raw one."""
