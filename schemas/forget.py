"""A request to forget an author: `guardline forget` writes it, and so may a platform. See docs/privacy.md."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from schemas.event import Id, SchemaVersion, Timestamp

ForgetId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class Forget(BaseModel):
    """Workers that hold data of this author delete it. A request that is read again changes nothing more."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: SchemaVersion = 1
    forget_id: ForgetId
    """Names the request: 32 hexadecimal digits, random."""
    tenant_id: Id
    author_id: Id
    requested_at: Timestamp
    """When the request was made. It covers the verdicts and review items on events that were in Kafka by then, by
    `source.timestamp` or `timings.received_at`, also those that a worker reads after the request."""
