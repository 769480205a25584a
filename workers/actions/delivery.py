"""The values of this room: a delivery, the call that makes it, the answer, and what the answer means."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from workers.core.records import Source
from workers.settings.action_sections import Kind


class Delivery(Struct, gc=False):
    """One record on its way to one endpoint.

    `id` is the idempotency key: the id of the verdict or the signal. For a review item and an appeal `.review` or
    `.appeal` follows it, because the verdict has a delivery of its own. `key` is that of the record: deliveries with
    the same key are made in order. `body` is what `Format.body` returned. `at_ms` is Kafka's timestamp of the record.
    """

    source: Source
    key: bytes
    id: str
    kind: Kind
    tenant_id: str
    body: bytes
    at_ms: int
    author_id: str | None = None
    """The author whom the body names, if a request to forget has to reach it."""
    happened_ms: int = 0
    """When the event happened, as `workers.core.forgotten` compares it. 0 without an author."""

    # From here on, the attempts: times in milliseconds since 1970.
    attempts: int = 0
    refusals: int = 0
    """How many attempts the endpoint refused, because of the content or while it accepted other deliveries."""
    alone: int = 0
    """How many attempts failed since which, or during which, the endpoint accepted another delivery."""
    accepted_before: int = 0
    """How many deliveries the endpoint had accepted at the last attempt."""
    status: int | None = None
    """The status of the last answer; None if the last attempt had none."""
    reason: str = ""
    """A sentence about the last failure, without content of the delivery or of the answer."""
    first_attempt_ms: int = 0
    last_attempt_ms: int = 0
    is_single: bool = False
    """Whether it has to be in a call of its own, because a call with others was refused."""


class Call(Struct, frozen=True):
    """One HTTP request. `path` is added to the URL of the endpoint; `headers` replace those of the settings."""

    body: bytes
    headers: dict[str, str]
    method: str = "POST"
    path: str = ""


class Answer(Struct, frozen=True):
    """What an endpoint answered. `body` has at most `Format.answer_bytes`; `is_whole` says whether that is all."""

    status: int
    body: bytes = b""
    is_whole: bool = True
    retry_after: str | None = None
    """The header `Retry-After` as it was sent."""


class Meaning(StrEnum):
    """What an attempt means for one delivery."""

    ACCEPTED = "accepted"
    """The endpoint has it."""
    FAILED = "failed"
    """Another attempt may succeed: no answer, an error of the server, or a limit."""
    REFUSED = "refused"
    """Another attempt hardly succeeds: a few more are made, in case the endpoint is being changed."""
    GONE = "gone"
    """The endpoint wants no more deliveries at all."""


class Result(Struct, frozen=True):
    """What an attempt means for one delivery, and for a failure the reason, as a sentence without content."""

    meaning: Meaning
    reason: str = ""
    after_s: float | None = None
    """How long the endpoint wants no calls at all."""
    is_about_content: bool = False
    """Whether the failure says nothing about the endpoint: it works, and does not take this content."""
    is_single: bool = False
    """Whether the next attempt has to be a call of its own."""
