"""The headers of the records: names and meanings. Every value is UTF-8.

A header that a producer adds is not named here. Workers copy it to outputs only as `events.carry_headers` says.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from schemas.delivery import ActionKind
from schemas.event import Timestamp
from schemas.reasons import DeadLetterReason

Digits = Annotated[str, Field(pattern=r"^[0-9]+$")]


class TraceHeaders(BaseModel):
    """The trace that a record belongs to (W3C Trace Context). Verdicts and review items keep the event's headers."""

    traceparent: str | None = None
    tracestate: str | None = None


class SchemaHeaders(BaseModel):
    """The schema of a value, by the header framing of a Schema Registry."""

    value_schema_id: Annotated[str | None, Field(alias="__value_schema_id")] = None
    """17 bytes: a byte of one, and the GUID of the schema. Outputs have it with `registry.url` and the framing
    `header`."""
    content_id: Annotated[
        str | None,
        Field(
            alias="apicurio.value.contentId",
            description="8 bytes, big-endian: Apicurio's id of the schema. Outputs have it with framing `apicurio`.",
        ),
    ] = None


class EventHeaders(TraceHeaders, SchemaHeaders):
    """The headers of an event. With `cloudevents.read` it may be a CloudEvent in binary mode."""

    ce_id: str | None = None
    """Stands in for a missing `event_id`."""
    ce_time: str | None = None
    """Stands in for a missing `created_at`."""
    ce_source: str | None = None
    """Becomes the attribute `ce_source` of the event, unless the event has one of this name."""


class OutputHeaders(SchemaHeaders):
    """The headers of a CloudEvent around an output, with `cloudevents.write`."""

    ce_specversion: Literal["1.0"] | None = None
    ce_id: str | None = None
    """The `verdict_id`, for a review item with `/review` behind it; for usage a hash with `/usage` behind it."""
    ce_source: str | None = None
    """The setting `cloudevents.source`."""
    ce_type: Literal["guardline.verdict.v1", "guardline.review.v1", "guardline.usage.v1"] | None = None
    """The kind of record, with its `schema_version`."""
    ce_time: str | None = None
    """When the worker decided, as RFC 3339 in UTC; for usage, when it committed."""
    content_type: Annotated[Literal["application/json"] | None, Field(alias="content-type")] = None


class VerdictHeaders(OutputHeaders, TraceHeaders):
    """The headers of a verdict or a review item."""


class DeadLetterHeaders(BaseModel):
    """The headers that a worker adds after the headers of the record itself."""

    reason: DeadLetterReason
    detail: str
    """A sentence for a person: it names fields and never repeats content."""
    source_topic: Annotated[str, Field(alias="source.topic")]
    source_partition: Annotated[Digits, Field(alias="source.partition")]
    source_offset: Annotated[Digits, Field(alias="source.offset")]
    source_keyless: Annotated[str | None, Field(alias="source.keyless")] = None
    """`true` if the record had no key. The key of the dead letter is then the number of the record's partition."""
    truncated_length: Annotated[Digits | None, Field(alias="truncated.length")] = None
    """Only for `output_too_large`: the length in bytes of the value, of which the dead letter holds the beginning."""
    truncated_sha256: Annotated[str | None, Field(alias="truncated.sha256", pattern=r"^[0-9a-f]{64}$")] = None
    """Only for `output_too_large`: the SHA-256 of the whole value, in hexadecimal."""
    replayed_from: Annotated[str | None, Field(alias="replayed.from")] = None
    """`TOPIC/PARTITION/OFFSET` of the first record with this message, if a replay sent the message again."""


class ReplayNoteHeaders(BaseModel):
    """The only header of a note that a replay writes beside the dead letters."""

    replayed_offset: Annotated[Digits, Field(alias="replayed.offset")]
    """The offset of the dead letter, in the same partition, whose message was sent again."""


class UndeliveredHeaders(BaseModel):
    """The headers of a delivery that was given up. The value is the body of its calls."""

    webhook_id: Annotated[str, Field(alias="webhook-id")]
    """The id with which the delivery was made, as in `topics.deliveries`."""
    kind: ActionKind
    tenant_id: Annotated[str, Field(alias="tenant.id")]
    endpoint: str
    attempts: Digits
    status: Digits | None = None
    """The status of the last answer, if there was one."""
    first_attempt: Annotated[Timestamp | None, Field(alias="attempt.first")] = None
    last_attempt: Annotated[Timestamp | None, Field(alias="attempt.last")] = None
    author_id: Annotated[str | None, Field(alias="author.id")] = None
    """The author whom the body names: a request to forget the author ends the delivery."""
    happened_ms: Annotated[Digits | None, Field(alias="event.ms")] = None
    """When the author's event happened, in milliseconds since 1970."""
    reason: Literal["refused", "expired", "gone"]
    detail: str
    """A sentence for a person: it never repeats content."""
    source_topic: Annotated[str, Field(alias="source.topic")]
    source_partition: Annotated[Digits, Field(alias="source.partition")]
    source_offset: Annotated[Digits, Field(alias="source.offset")]
