"""A request to forget an author: `guardline forget` writes it, and so may a platform. See docs/privacy.md."""

import re
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, field_validator

from schemas.event import Id, SchemaVersion, Timestamp

ForgetId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


def milliseconds(requested_at: str) -> int:
    """Give a time in milliseconds since 1970-01-01 UTC. A leap second is the second before it.

    Raises:
        ValueError: there is no such time, such as one on 30 February.
    """
    # Unlike the standard library, RFC 3339 allows a small `z`, and a second of 60.
    time = re.sub(r"(?<=:\d\d:)60", "59", requested_at.upper())
    return int(datetime.fromisoformat(time).timestamp() * 1000)


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

    @field_validator("requested_at")
    @classmethod
    def _check_time(cls, requested_at: str) -> str:
        milliseconds(requested_at)
        return requested_at
