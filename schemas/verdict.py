"""A verdict: what comes out for every event that can be decoded, exactly once."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.assessment import Assessment
from schemas.event import CarriedAttributes, Id, Language, SchemaVersion, Timestamp
from schemas.taxonomy import Category, Decision, Role, Severity, Surface

VerdictId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
MAX_NOTE_CHARS = 2_000
Note = Annotated[str, StringConstraints(max_length=MAX_NOTE_CHARS)]
Similarity = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class PolicyReference(BaseModel):
    """Which policy decided. Version 0 is a built-in policy."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    version: Annotated[int, Field(ge=0)]
    digest: str


class SourcePosition(BaseModel):
    """Where the event was read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    topic: str
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    timestamp: int | None
    """Kafka's timestamp of the record, in milliseconds since 1970-01-01 UTC; null if it has none."""


class Timings(BaseModel):
    """When the event was read, and how long it took to judge."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    received_at: int
    """Milliseconds since 1970-01-01 UTC."""
    judged_ms: Annotated[float, Field(ge=0)] | None = None
    """Milliseconds from the closing of its micro-batch to having its assessment."""


class Correction(BaseModel):
    """What a person found instead of the model's assessment. A field that is null was not corrected."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    severity: Severity | None = None
    categories: list[Category] | None = None


class Verdict(BaseModel):
    """The decision for one event, with all that led to it.

    A superseding verdict replaces an earlier one on the same event. It repeats the fields of that verdict, and has its
    own `verdict_id`, `decision` and `reasons`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: SchemaVersion = 1
    verdict_id: VerdictId
    """A hash of pipeline, source position and event id: the same event read again at the same place has the same."""
    event_id: Id
    """The event's own id, or `TOPIC/PARTITION/OFFSET` if it had none; then `ignored_fields` names `event_id`."""
    tenant_id: Id
    surface: Surface
    author_id: Id | None = None
    language: Language | None = None
    """The language that the policy decided by; null if it is not known."""
    language_source: Literal["producer", "detector"] | None = None
    """Who named the language: the event, or the detector (`language.detector`); null if the language is not known."""
    role: Role
    assessment: Assessment | None
    """Null for an event without text, and for one that could not be judged: the tenant's `on_unavailable` decided."""
    decision: Decision
    reasons: list[str]
    """`<severity>:<category>`, or `<severity>` if no category was found. `unavailable`: the event could not be judged.
    `empty`: the event has no text, and the decision is `allow`. No reasons: the content is safe."""
    policy: PolicyReference
    source: SourcePosition
    duplicate_of: VerdictId | None
    """The first verdict on the same event, as far as it is remembered."""
    timings: Timings
    created_at: Timestamp | None
    """The event's own time. A time that was not RFC 3339 was rewritten to RFC 3339 in UTC."""
    attributes: CarriedAttributes
    """The event's attributes that `events.carry_attributes` names."""
    ignored_fields: list[str]
    """Fields of the event that could not be used as they were. They were left out, shortened, or replaced."""
    truncated_text_chars: Annotated[int, Field(ge=0)]
    """How many characters were cut from the middle of the text, because it is longer than `events.max_text_chars`."""
    strikes: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    """The author's strikes by which the policy decided. Null if no rule of the policy asks for them, or if they are not
    known; a rule that asks for them then does not match."""
    similarity: Similarity | None = None
    """A SimHash of the text, 64 bits in hexadecimal, if `events.similarity` is on. Nearly equal texts differ in few
    bits."""
    supersedes: VerdictId | None = None
    """The verdict that this one replaces: a person has decided, or decided again. Null for the worker's own verdict."""
    superseded_decision: Decision | None = None
    """The decision of the verdict that this one replaces."""
    decided_by: Id | None = None
    """Who decided: the name of a person's token, or of the system that passed the decision on. Null for the policy.
    Several names are separated by commas, and cut where they are too long: `deciders` is exact."""
    deciders: list[Id] | None = None
    """Everybody who has decided about the event so far, one name each. None of them decides an appeal. Null for the
    policy."""
    note: Note | None = None
    """What the person wrote down as the reason."""
    corrected: Correction | None = None
    """What the person found instead of `assessment`."""
