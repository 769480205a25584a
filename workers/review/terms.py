"""What the rules of a review item need and give: a command, the settings, the tenant's policy, the changed item."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from schemas.review_command import ReviewCommand
from workers.review.item import Item, Lease

HOUR_MS = 3_600_000


class Terms(NamedTuple):
    """What the settings say. Times are lengths in milliseconds."""

    lease_ms: int
    undo_ms: int
    keep_decided_ms: int
    """How long a decided item keeps its content."""
    keep_history_ms: int
    """How long an item without content is kept."""
    max_leases: int
    """How many items one person may have on lease."""
    carry_attributes: bool | Sequence[str] = True
    """The attributes that a verdict has: the setting `events.carry_attributes`."""


class TenantRules(NamedTuple):
    """What the tenant's policy says of review."""

    sla_ms: int
    retention_ms: int | None
    four_eyes: frozenset[str]
    reach_attribute: str | None = None


class Change(NamedTuple):
    """What a command does. `item` is None if the item is deleted.

    `actions` are the audited ones. With `published` among them, the newest superseding verdict of the item is written.
    """

    item: Item | None
    actions: tuple[str, ...]


class Given(NamedTuple):
    """A command with what is needed to apply it. `superseding_id` gives the id of the verdict that a command causes."""

    command: ReviewCommand
    now_ms: int
    terms: Terms
    tenant: TenantRules
    superseding_id: Callable[[str], str]
    document: Mapping[str, Any]
    """The JSON object of the review item or verdict that the command brings; empty if it brings none."""
    leases: Sequence[Lease] = ()
    """The leases that the person has on other items."""
