"""A webhook: the body of the calls that an endpoint with the format `webhook` gets."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from schemas.event import Timestamp
from schemas.signal import Signal
from schemas.verdict import Verdict

WebhookType = Literal["verdict.created", "verdict.superseded", "review.requested", "signal.changed", "guardline.test"]


class TestEvent(BaseModel):
    """The data of a call by `guardline actions test`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str
    """The name of the endpoint in the settings."""


class Webhook(BaseModel):
    """One call. The same verdict or signal always has the same body, and the same header `webhook-id`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: WebhookType
    """`verdict.created`: the guard's verdict. `verdict.superseded`: a person's verdict, which replaces the one that
    `data.supersedes` names. `review.requested`: an item for the review queue, without its text. `signal.changed`: a
    signal was raised or cleared. `guardline.test`: made by `guardline actions test`; do nothing."""
    timestamp: Timestamp
    """When the verdict or signal was written to Kafka. The header `webhook-timestamp` has the time of the attempt."""
    data: Verdict | Signal | TestEvent
    """The verdict or signal as it is in Kafka: see contracts.md. It never holds the text of a message."""
