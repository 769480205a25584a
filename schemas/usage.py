"""Usage: what the verdicts of one transaction add to a tenant's usage of one minute. Readers sum the records."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from schemas.event import Id, SchemaVersion, Timestamp


class Usage(BaseModel):
    """What one transaction adds for one tenant and minute. It is committed together with the verdicts it counts."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: SchemaVersion = 1
    tenant_id: Id
    minute: Timestamp
    """The beginning of the minute, in UTC, in which the events were read: `timings.received_at` of their verdicts."""
    events: Annotated[int, Field(ge=1)]
    """The number of verdicts."""
    cache_hits: Annotated[int, Field(ge=0)]
    """Verdicts that reuse an assessment: one that Redis had, or that of an equal content which was in flight."""
    tokens: Annotated[int, Field(ge=0)]
    """The sum of `assessment.tokens` over the verdicts that are not cache hits."""
    engine_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    """Milliseconds of engine time. Calls to the engine that overlap share the time, and the contents of a call share
    its time by their tokens. So all tenants of a worker together have at most the time that passed."""
