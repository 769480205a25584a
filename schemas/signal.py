"""A signal: what the verdicts on an author, a tenant, a thread or a content add up to, seen over time."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.event import Id, SchemaVersion, Timestamp
from schemas.verdict import VerdictId

MAX_EVIDENCE = 20

SignalKind = Literal["author_strikes", "harm_rate", "similar_content", "thread"]
SignalId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class Signal(BaseModel):
    """A threshold was crossed, upwards (`raised`) or downwards (`cleared`).

    Between two signals of one subject and threshold with the same state there is always one with the other state.
    Signals are written at least once: skip a `signal_id` that you know.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: SchemaVersion = 1
    signal_id: SignalId
    """The same crossing that is written twice has the same id. Every other signal has another one."""
    crossing_id: SignalId
    """Ties a `cleared` signal to its `raised` one: both have the same."""
    kind: SignalKind
    """`author_strikes`: an author's strikes reached a threshold of the tenant's policy. `harm_rate`: a tenant's rate of
    harmful verdicts is above its own normal. `similar_content`: many authors sent nearly the same content. `thread`: a
    thread has a high rate of harmful verdicts."""
    state: Literal["raised", "cleared"]
    tenant_id: Id
    subject: str
    """The author's id (`author_strikes`), the tenant's id (`harm_rate`), the SimHash of the content in 16 hexadecimal
    digits (`similar_content`), or the thread's id (`thread`)."""
    threshold_name: str
    """For `author_strikes` the name of the policy's threshold; otherwise the kind."""
    value: Annotated[float, Field(allow_inf_nan=False)]
    """What was compared: strikes, standard deviations above normal, distinct authors, or a rate from 0 to 1."""
    threshold: Annotated[float, Field(allow_inf_nan=False)]
    """What `value` reached if the state is `raised`; what it fell below if the state is `cleared`."""
    evidence: Annotated[list[VerdictId], Field(max_length=MAX_EVIDENCE)]
    """The newest verdicts that led to the signal, the newest first."""
    at: Timestamp
    """When the threshold was crossed, in UTC."""
