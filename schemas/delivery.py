"""A delivery: what became of one verdict or signal at one endpoint. It holds no content and no author."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from schemas.event import Id, SchemaVersion, Timestamp

EndpointName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]
ActionKind = Literal["verdict", "superseding", "signal", "review", "appeal"]
DeliveryOutcome = Literal["delivered", "refused", "expired", "gone", "forgotten"]


class Delivery(BaseModel):
    """A delivery that has ended. The record's key is `id`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: SchemaVersion = 1
    id: str
    """The id with which the delivery was made: that of the verdict or the signal. For a review item `.review` follows
    the verdict's id, and for an appeal `.appeal`."""
    endpoint: EndpointName
    kind: ActionKind
    tenant_id: Id
    outcome: DeliveryOutcome
    """`delivered`: the endpoint accepted it. `forgotten`: its author was forgotten before. Otherwise it is in the
    endpoint's topic of dead letters: `refused` by its status, `expired` after all attempts, `gone` because the endpoint
    had answered 410."""
    attempts: Annotated[int, Field(ge=0)]
    """The attempts of the worker that ended it. Attempts that a killed worker made before are not counted."""
    status: Annotated[int, Field(ge=100, le=999)] | None
    """The status of the last answer; null if the last attempt had none."""
    first_attempt_at: Timestamp | None
    """Null if no attempt was made, because the endpoint was gone or the author forgotten."""
    ended_at: Timestamp
    is_repeat: bool = False
    """Whether `guardline actions redeliver` or `reconcile --resend` made the delivery."""
