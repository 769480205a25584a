"""The values that stages pass to each other: the position of a record, an event in flight, and its outputs.

They are Structs, because each event needs about ten of them: a NamedTuple or a dataclass takes 0.5 µs to make, a Struct
0.1 µs. They hold no reference cycles, so the garbage collector does not have to scan them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from schemas.event import EventDict
from workers.errors import Undecodable

if TYPE_CHECKING:
    from prometheus_client import Counter

    from workers.core.siblings import Siblings

NOTHING_LOST = "Nothing was lost: the owner of the partitions goes on from the last commit"
"""True however the worker ended: offsets are committed together with the verdicts, or not at all."""


class TopicPartition(NamedTuple):
    """One partition of one input topic."""

    topic: str
    partition: int


class Source(Struct, frozen=True, gc=False):
    """The position of one input record; `epoch` counts the assignments of the partition to this worker.

    `timestamp_ms` is Kafka's timestamp, None if the record has none. `received_at_ms` is the time of the poll.
    """

    origin: TopicPartition
    epoch: int
    offset: int
    timestamp_ms: int | None = None
    received_at_ms: int = 0


Headers = list[tuple[str, bytes | None]]
"""A record's headers. Neither names nor values need be unique, and a value may be null."""


class Record(NamedTuple):
    """A record as Kafka hands it over.

    `headers` is empty if the name of one is not UTF-8: `headers_refused` is then the reason.
    """

    value: bytes | None
    key: bytes | None = None
    headers: Headers = []  # noqa: RUF012 - never changed
    topic: str = ""
    headers_refused: Undecodable | None = None


class Output(Struct, frozen=True, gc=False):
    """One record to produce. `headers` is None where there are none, `value` only in a dead letter of a tombstone."""

    topic: str
    key: bytes
    value: bytes | None
    headers: Headers | None = None


class Memory(Struct, frozen=True, gc=False):
    """The entries that dedup writes after the commit. `assessment` is None if the event was not judged anew.

    `has_verdict` is False if a dead letter replaced the verdict: no duplicate may name that verdict.
    """

    event_key: bytes
    content_key: bytes
    verdict_id: str
    assessment: bytes | None
    has_verdict: bool = True


class Used(Struct, frozen=True, gc=False):
    """What one verdict adds to the usage of its tenant, in the minute since 1970 in which its event was read."""

    tenant_id: str
    minute: int
    tokens: int
    engine_ms: float
    is_cache_hit: bool


class Finished(Struct, frozen=True, gc=False):
    """An input record that needs no more work: its outputs wait for the next transaction.

    `headers` are those of the input record. A dead letter needs them if the outputs are too large. `counted` are the
    counters that rise by one when the record is committed. `created_at` has the times of its events, where they have
    one. `usage` has an entry for each verdict, and none if no usage topic is set. `trace` is the span of its
    micro-batch, None without traces.
    """

    source: Source
    outputs: tuple[Output, ...]
    memories: tuple[Memory, ...] = ()
    headers: Headers | None = None
    counted: tuple[Counter, ...] = ()
    created_at: tuple[str, ...] = ()
    usage: tuple[Used, ...] = ()
    trace: object | None = None


class Event(Struct, gc=False):
    """One event in flight. Each stage fills more of its fields; see `moderation/pipeline.py`.

    `body` is the decoded JSON. `tokens` is an estimate for the size of micro-batches. `headers` is None for a record
    without headers. `ignored_fields` and `truncated_text_chars` are those of `Decoded`.
    """

    source: Source
    key: bytes
    body: EventDict
    tokens: int = 1
    headers: Headers | None = None
    ignored_fields: tuple[str, ...] = ()
    truncated_text_chars: int = 0
    siblings: Siblings | None = None
    """All events of its record, where there are several, and its own place among them."""
    place: int = 0

    # From here on, its micro-batch is closed.
    verdict_id: str = ""
    is_shared: bool = False
    """Whether its tenant shares assessments of equal content with other tenants."""
    retry_s: float = 0.0
    """How long the judge retries before the policy's `on_unavailable` decides."""

    # From here on, it was looked up.
    event_key: bytes = b""
    content_key: bytes = b""
    duplicate_of: str | None = None
    """The verdict id of the first event with the same id and content; None for the first event itself."""
    is_reused: bool = False
    """Whether its assessment comes from Redis."""

    # From here on, it was looked up or judged.
    detected_language: str | None = None
    """The language that the detector found; None if the producer named one, or there is no detector."""
    assessment: dict[str, Any] | None = None
    """A `schemas.assessment.Assessment` as a dict; None for an event that could not be judged or has no text."""
    engine_ms: float | None = None
    """The engine's time with which it is charged. None if its assessment is reused, from Redis or from an equal content
    in flight, and if it was not judged."""

    similarity: str | None = None
    """A SimHash of its text, 16 hexadecimal digits; None if the text is short, or no SimHashes are computed."""
    strikes: float | None = None
    """The author's strikes, looked up before the decision; None if no rule asks for them or they are not known."""

    @property
    def is_empty(self) -> bool:
        """Whether the event has no text, such as a message with only an attachment."""
        return not self.body["text"]


def record_key(key: bytes | None, partition: int) -> bytes:
    """Give the key of a record's outputs: the record's own key, or the number of its partition if it has none.

    Records without a key are in order within their partition; with this key, so are their outputs.
    """
    return key if key is not None else str(partition).encode()
