"""Who may do what with an item now: each function raises a `Refusal` with a sentence, or returns. Pure."""

from __future__ import annotations

from schemas.review_command import ReviewCommand
from workers.review.item import Item, Opinion
from workers.review.refusal import Refusal, conflict, not_allowed
from workers.review.terms import Given

PEOPLE = frozenset({"reviewer", "senior"})


def unknown(verdict_id: str) -> Refusal:
    """Give the refusal of an item that the worker does not know."""
    return Refusal(404, f"there is no review item {verdict_id}: it never went to review, or it was deleted in time")


def require_person(item: Item, command: ReviewCommand) -> None:
    """Refuse somebody who may not decide the item: by the role, or because of an earlier decision."""
    role, by = command.role.value, command.by
    if role not in PEOPLE:
        raise not_allowed(f"the role {role} may not decide: a person with the role reviewer or senior has to")
    if item.status == "escalated" and role != "senior":
        raise not_allowed("the item is escalated: only a person with the role senior may decide")
    if not item.is_waiting:
        raise not_waiting(item, by)
    if item.appeal is not None and by in item.deciders:
        raise not_allowed(f"{by} made the decision that is appealed: another person has to decide")
    if any(opinion.by == by for opinion in item.opinions):
        raise not_allowed(f"{by} has decided already: the policy wants a second person")


def require_fewer(by: str, leases: int, max_leases: int) -> None:
    """Refuse one more lease of a person who has `leases` already."""
    if leases >= max_leases:
        raise conflict(f"{by} has {leases} items on lease: decide, skip or release one (review.max_leases)")


def require_appellant(command: ReviewCommand) -> None:
    """Refuse somebody who may not appeal."""
    if command.role.value not in ("service", "senior"):
        raise not_allowed(f"the role {command.role.value} may not appeal: a service or a senior person has to")


def require_turn(item: Item, given: Given) -> None:
    """Refuse a command that only the person may give who can decide the item now."""
    require_person(item, given.command)
    require_free(item, given)


def require_free(item: Item, given: Given) -> None:
    """Refuse a command for an item that somebody else has on lease."""
    lease = item.holder(given.now_ms)
    if lease is not None and lease.by != given.command.by:
        raise conflict(f"{lease.by} has the item on lease", by=lease.by, at_ms=lease.since)


def require_own_lease(item: Item, given: Given) -> None:
    """Refuse a command for an item that the person does not have on lease."""
    require_free(item, given)
    if item.lease is None or item.lease.by != given.command.by:
        raise conflict(f"{given.command.by} does not have the item on lease")


def not_waiting(item: Item, person: str) -> Refusal:
    """Give the refusal of an item that nobody can decide now, for this person: it names who was first."""
    if item.pending is not None:
        opinion: Opinion | None = item.pending
    else:
        opinion = item.settled[-1] if item.status == "decided" and item.settled else None
    if opinion is not None:
        # The second of two people does not learn what the first one decides.
        is_blind = item.four_eyes and item.pending is not None
        first = "has decided already:" if opinion.by == person else "was first and has decided"
        what = "" if is_blind and opinion.by != person else f" {opinion.decision}"
        return conflict(f"{opinion.by} {first}{what}", by=opinion.by, at_ms=opinion.at)
    return conflict(f"the item is {item.status}: nobody can decide it")
