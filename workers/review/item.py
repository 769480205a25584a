"""A review item as a value: what `schemas.review_state.ReviewState` says, as Structs. Pure.

Verdict and content stay JSON: 100,000 of them as dicts would take five times the memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson
from msgspec import Raw, Struct

SCHEMA_VERSION = 1
WAITING = frozenset({"open", "second_opinion", "escalated", "reopened", "appealed"})
"""The statuses in which an item waits for a person."""


NO_CONTENT = Raw(b"null")
"""Instead of the content of an item that has lost it: msgspec has no optional `Raw`."""


MAX_STEPS = 100
"""The most steps of a history. The audit topic has them all."""

RECENT_STEPS = 20
"""The newest steps are never left out: a repeated request is recognised by its step."""

MAX_SKIPPED = 50
"""The most people who have skipped an item: the queue may give it again to the one whose skip is the oldest."""

PASSING = frozenset({"leased", "released", "skipped", "lease_ended"})
"""The steps that are left out first: they change nothing that lasts."""

ENDS_OF_DECISIONS = frozenset({"undone", "escalated", "second_opinion", "published"})
"""The steps that follow a decision: it was taken back, or it took effect."""


REPUBLISHED = "republished"
"""The step of a superseding verdict that was missing and was written again."""


class Lease(Struct, frozen=True, omit_defaults=False):
    """Somebody looks at the item until `until`, in milliseconds since 1970-01-01 UTC."""

    by: str
    command_id: str
    since: int
    until: int


class Opinion(Struct, frozen=True):
    """What one person decided."""

    by: str
    role: str
    command_id: str
    at: int
    decision: str
    note: str | None = None
    severity: str | None = None
    categories: tuple[str, ...] | None = None


class Step(Struct, frozen=True):
    """One applied command."""

    at: int
    action: str
    by: str
    role: str
    command_id: str
    decision: str | None = None


class Item(Struct, frozen=True):
    """One review item. See `schemas.review_state.ReviewState` for the fields."""

    verdict_id: str
    tenant_id: str
    language: str | None
    status: str
    key: str
    opened_at: int
    waiting_since: int
    due_at: int
    turn_at: int
    current: str
    current_decision: str
    verdict: Raw
    content: Raw = NO_CONTENT
    expires_at: int | None = None
    four_eyes: bool = False
    lease: Lease | None = None
    pending: Opinion | None = None
    settles_at: int | None = None
    opinions: tuple[Opinion, ...] = ()
    deciders: tuple[str, ...] = ()
    skipped_by: tuple[str, ...] = ()
    history: tuple[Step, ...] = ()
    appeal: str | None = None
    closed_because: str | None = None
    settled: tuple[Opinion, ...] = ()
    previous: str | None = None
    previous_decision: str | None = None
    published: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def is_waiting(self) -> bool:
        """Whether a person still has to decide, and no decision is about to take effect."""
        return self.status in WAITING and self.pending is None

    @property
    def has_content(self) -> bool:
        """Whether the item still has its content."""
        return bytes(self.content) != bytes(NO_CONTENT)

    @property
    def author_id(self) -> str | None:
        """The author of the event, None if it has none or was forgotten."""
        author = _AUTHOR.decode(self.verdict).author_id
        return author if isinstance(author, str) else None

    def holder(self, now_ms: int) -> Lease | None:
        """Give the lease, if it is still valid."""
        return self.lease if self.lease is not None and self.lease.until > now_ms else None

    def excluded(self) -> frozenset[str]:
        """Name the people to whom the queue does not give this item.

        They gave an opinion already, or made the decision that is appealed.
        """
        people = {opinion.by for opinion in self.opinions}
        return frozenset(people | set(self.deciders) if self.appeal is not None else people)

    @property
    def everybody(self) -> tuple[str, ...]:
        """Everybody who made the newest superseding verdict, an earlier one, or an opinion for one of them."""
        # After a decision the opinions stay until the item is reopened or appealed. They then become deciders.
        now = self.opinions if self.status == "decided" else ()
        return tuple(dict.fromkeys([*self.deciders, *(opinion.by for opinion in now)]))

    def step_of(self, command_id: str) -> Step | None:
        """Give the step that a command has made, None if the command was not applied."""
        return next((step for step in reversed(self.history) if step.command_id == command_id), None)

    def is_undone(self, command_id: str) -> bool:
        """Say whether the decision of this command was taken back later."""
        later = itertools.dropwhile(lambda step: step.command_id != command_id, self.history)
        ends = (step.action for step in itertools.islice(later, 1, None) if step.action in ENDS_OF_DECISIONS)
        return next(ends, None) == "undone"


def with_step(history: tuple[Step, ...], step: Step) -> tuple[Step, ...]:
    """Add a step to a history, and leave out the oldest one that may be left out if there are more than `MAX_STEPS`."""
    steps = (*history, step)
    if len(steps) <= MAX_STEPS:
        return steps
    # The first step says how the item came.
    oldest = next((at for at, one in enumerate(steps[:-RECENT_STEPS]) if one.action in PASSING), 1)
    return steps[:oldest] + steps[oldest + 1 :]


class _Author(Struct):
    author_id: Any = None


_AUTHOR = msgspec.json.Decoder(_Author)
_ITEM = msgspec.json.Decoder(Item)
_encoder = msgspec.json.Encoder()


def encoded(item: Item) -> bytes:
    """Write the record of an item."""
    return _encoder.encode(item)


def decoded(value: bytes) -> Item:
    """Read the record of an item. Fields that it does not know are ignored.

    Raises:
        msgspec.DecodeError: it is not such a record.
    """
    return _ITEM.decode(value)


def raw(document: Mapping[str, Any]) -> Raw:
    """Give a JSON object as it is kept in an item."""
    return Raw(orjson.dumps(document))


def parsed(value: Raw) -> dict[str, Any]:
    """Give the JSON object again."""
    document: dict[str, Any] = orjson.loads(bytes(value))
    return document
