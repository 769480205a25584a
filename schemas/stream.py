"""A stream: the answer of an assistant that is judged while it is written. Its events, verdicts and interventions.

A stream is one answer to one or more turns of a user. All its records have the key `stream_id`, so that one partition
holds them in order.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from schemas.event import Id, SchemaVersion, Timestamp
from schemas.policy import StreamPolicy
from schemas.taxonomy import Category, Severity
from schemas.verdict import PolicyReference, SourcePosition, VerdictId

MAX_STREAM_TEXT_CHARS = 262_144
MAX_STREAM_TOKENS = 65_536

SEVERITIES = (Severity.SAFE, Severity.CONTROVERSIAL, Severity.UNSAFE)
"""The order of the probabilities of severities, in every record and engine."""

ANSWER_CATEGORIES = (
    Category.VIOLENT,
    Category.NON_VIOLENT_ILLEGAL_ACTS,
    Category.SEXUAL_CONTENT,
    Category.PII,
    Category.SUICIDE_AND_SELF_HARM,
    Category.UNETHICAL_ACTS,
    Category.POLITICALLY_SENSITIVE_TOPICS,
    Category.COPYRIGHT_VIOLATION,
)
"""The order of the probabilities of an answer's categories."""

PROMPT_CATEGORIES = (*ANSWER_CATEGORIES, Category.JAILBREAK)
"""The order of the probabilities of the categories of a user's turn."""

Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
StreamStep = Literal["open", "user", "delta", "close"]
StreamText = Annotated[str, StringConstraints(max_length=MAX_STREAM_TEXT_CHARS)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=MAX_STREAM_TOKENS)]


class StreamEvent(BaseModel):
    """One step of a stream, in the order of `seq`."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    schema_version: SchemaVersion = 1
    kind: StreamStep
    """`open` begins a stream. `user` is a whole turn of the user, and comes before the answer to it. `delta` is the
    next part of the answer. `close` ends the stream."""
    stream_id: Id
    tenant_id: Id
    seq: Annotated[int, Field(ge=0, lt=2**53)]
    """0 for `open`, and one more for each further record of the stream."""
    text: StreamText | None = None
    """The text of `user` and `delta`; null if `token_ids` are given. A surrogate pair may be split between deltas."""
    token_ids: TokenIds | None = None
    """In the place of `text`: ids in the guard's own vocabulary, without those of control tokens."""
    created_at: Timestamp | None = None

    @model_validator(mode="after")
    def _check_content(self) -> "StreamEvent":
        given = (self.text is not None) + (self.token_ids is not None)
        if given != (self.kind in ("user", "delta")):
            raise ValueError(
                f"{self.kind} has text or token_ids, and not both"
                if self.kind in ("user", "delta")
                else f"{self.kind} has neither text nor token_ids"
            )
        return self


class PromptJudgement(BaseModel):
    """What the model finds in a turn of the user."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    severity: Severity
    risk: Annotated[list[Probability], Field(min_length=3, max_length=3)]
    """The probabilities of Safe, Controversial and Unsafe."""
    categories: list[Category]
    """The most likely category, if the severity is not Safe."""


class StreamVerdict(BaseModel):
    """The answer to one stream event: exactly one for each that can be decoded. It never holds the text."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: SchemaVersion = 1
    verdict_id: VerdictId
    """A hash of pipeline and source position: the same record read again at the same place has the same."""
    stream_id: Id
    tenant_id: Id
    seq: int
    kind: StreamStep
    outcome: Literal[
        "opened",
        "judged",
        "waiting",
        "cut",
        "after_cut",
        "closed",
        "unavailable",
        "repeated",
        "out_of_order",
        "unknown_stream",
        "expired",
        "too_long",
        "refused",
    ]
    """What became of the event: see docs/streams.md#outcomes."""
    prompt: PromptJudgement | None = None
    """For `user`: what the model finds in it."""
    first_position: Annotated[int, Field(ge=0)] | None = None
    """The position of the first token of the answer that this verdict judges; null if it judges none."""
    risk: list[Annotated[list[Probability], Field(min_length=3, max_length=3)]] = []
    """For each position: the probabilities of Safe, Controversial and Unsafe."""
    categories: list[Category | None] = []
    """For each position: the most likely category, or null if Safe is the most likely severity."""
    shown_chars: Annotated[int, Field(ge=0)]
    """How many characters of the answer may be shown by now."""
    policy: PolicyReference | None
    """Whose digest is that of the stream's rules. Null if the stream is not known."""
    rules: StreamPolicy | None = None
    """For `opened`: the rules of the stream, with the threshold that applies. By them the cut can be found again."""
    source: SourcePosition
    judged_ms: Annotated[float, Field(ge=0)] | None = None
    """Milliseconds from the reading of the event to its verdict."""
    created_at: Timestamp | None = None


class Intervention(BaseModel):
    """The end of a stream by policy: whoever shows the answer stops, and takes back what is beyond `shown_chars`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: SchemaVersion = 1
    intervention_id: VerdictId
    """The id of the verdict that it comes with."""
    stream_id: Id
    tenant_id: Id
    seq: int
    position: Annotated[int, Field(ge=0)]
    """The position of the token of the answer at which the policy decided. 0 for a cut at the user's turn."""
    shown_chars: Annotated[int, Field(ge=0)]
    """How many characters of the answer may stay."""
    reason: Literal["prompt", "unsafe", "controversial", "mean", "unavailable"]
    severity: Severity | None
    """Null if the answer could not be judged."""
    categories: list[Category]
    replacement: str
    """What to show in the place of the rest, by the tenant's policy; may be empty."""
    policy: PolicyReference
    source: SourcePosition


class StreamSession(BaseModel):
    """Where an open stream begins, for the next owner of its partition. A tombstone ends it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: SchemaVersion = 1
    stream_id: Id
    tenant_id: Id
    start: SourcePosition
    """The record `open`. The next owner reads the input topic from here."""
    policy: PolicyReference
    rules: StreamPolicy
    """The rules at the beginning. A later change of the tenant's policy applies to later streams."""
    state: Literal["open", "cut", "unavailable"] = "open"
    shown_chars: Annotated[int, Field(ge=0)] = 0
    """If the stream was cut: how many characters of the answer may stay."""
