"""The values that stages hand to each other: where a record came from, what is under way, and what came out.

Structs, because each event is made of ten of them: a NamedTuple or a dataclass takes 0.5 µs to make, these 0.1. They
hold no cycles, so the garbage collector need not look at them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from schemas.event import EventDict

if TYPE_CHECKING:
    from workers.core.siblings import Siblings

NOTHING_LOST = "Nothing was lost: the owner of the partitions goes on from the last commit"
"""What can be said whatever ended the worker: offsets are committed together with the verdicts, or not at all."""


class TopicPartition(NamedTuple):
    """One partition of one input topic."""

    topic: str
    partition: int


class Source(Struct, frozen=True, gc=False):
    """The position of one input record; `epoch` counts the times this worker was given the partition."""

    origin: TopicPartition
    epoch: int
    offset: int


Headers = list[tuple[str, bytes | None]]
"""A record's headers. Neither names nor values need be unique, and a value may be null."""


class Output(Struct, frozen=True, gc=False):
    """One record to produce. `headers` is None where there are none, `value` only in a dead letter of a tombstone."""

    topic: str
    key: bytes
    value: bytes | None
    headers: Headers | None = None


class Memory(Struct, frozen=True, gc=False):
    """What dedup may write once the outcome is committed; `assessment` is None when nothing new was judged.

    `has_verdict` is False when a dead letter took the verdict's place: nobody may name it.
    """

    event_key: bytes
    content_key: bytes
    verdict_id: str
    assessment: bytes | None
    has_verdict: bool = True


class Finished(Struct, frozen=True, gc=False):
    """An input record that needs no more work: its outputs wait for the next transaction.

    `headers` are the input record's own, for the dead letter that it may still become.
    """

    source: Source
    outputs: tuple[Output, ...]
    memories: tuple[Memory, ...] = ()
    headers: Headers | None = None


class Event(Struct, gc=False):
    """One event on its way to a verdict: one value that gains fields from stage to stage. See `moderation/pipeline.py`.

    `body` is the decoded JSON, `tokens` an estimate that sizes micro-batches, `headers` None for a record without any,
    `timestamp_ms` that of the record. `ignored_fields` and `truncated_text_chars` are those of `Decoded`.
    """

    source: Source
    key: bytes
    body: EventDict
    received_at_ms: int
    tokens: int = 1
    headers: Headers | None = None
    timestamp_ms: int | None = None
    ignored_fields: tuple[str, ...] = ()
    truncated_text_chars: int = 0
    siblings: Siblings | None = None
    """All events of its record, where there are several, and its own place among them."""
    place: int = 0

    # Its micro-batch is closed.
    verdict_id: str = ""
    is_shared: bool = False
    """Its tenant shares judgements of equal content with others that do."""
    patience_s: float = 0.0
    """For how long a judgement is retried before the policy's `on_unavailable` decides."""

    # It was looked up.
    event_key: bytes = b""
    content_key: bytes = b""
    duplicate_of: str | None = None
    """The verdict id of the first event with the same id and content, None for the first."""
    is_reused: bool = False
    """Its assessment was remembered, and needs no model."""

    # It was looked up or judged.
    assessment: dict[str, Any] | None = None
    """A `schemas.assessment.Assessment` as a dict, None when no judgement could be had."""

    @property
    def is_empty(self) -> bool:
        """Whether there is no text to judge, as in a message of an attachment alone."""
        return not self.body["text"]


def record_key(key: bytes | None, partition: int) -> bytes:
    """Give the key that outputs carry: the record's own, or its source partition when it has none.

    A record without a key is still in order with its neighbours on the partition, and so are its outputs.
    """
    return key if key is not None else str(partition).encode()
