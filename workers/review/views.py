"""What people see of an item, of their leases and of the queues. The API and the page show the same."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from workers.review.item import Item, Opinion, parsed
from workers.review.people import READS_CONTENT, Person


class LeaseView(BaseModel):
    """Who has an item, and until when. Times are in milliseconds since 1970-01-01 UTC."""

    model_config = ConfigDict(frozen=True)

    by: str
    since: int
    until: int


class PendingView(BaseModel):
    """A decision that can still be undone. `decision` is null while it would influence a second person."""

    model_config = ConfigDict(frozen=True)

    by: str
    at: int
    decision: str | None
    undo_until: int


class ItemSummary(BaseModel):
    """An item without its content. Times are in milliseconds since 1970-01-01 UTC."""

    model_config = ConfigDict(frozen=True)

    verdict_id: str
    tenant_id: str
    language: str | None
    surface: str
    status: str
    """`open`, `second_opinion`, `escalated`, `reopened`, `appealed`, `decided` or `closed`."""
    severity: str | None
    categories: list[str]
    reasons: list[str]
    waiting_since: int
    due_at: int
    is_overdue: bool
    four_eyes: bool
    lease: LeaseView | None
    pending: PendingView | None
    current: str
    """The newest verdict on the event."""
    current_decision: str
    closed_because: str | None


class OpinionView(BaseModel):
    """What somebody decided."""

    model_config = ConfigDict(frozen=True)

    by: str
    role: str
    at: int
    decision: str
    note: str | None
    """Null for roles that may not see content."""
    severity: str | None
    categories: list[str] | None


class StepView(BaseModel):
    """One change of the item. `decision` is null while it would influence a second person."""

    model_config = ConfigDict(frozen=True)

    at: int
    action: str
    by: str
    role: str
    decision: str | None


class ContentView(BaseModel):
    """What was judged."""

    model_config = ConfigDict(frozen=True)

    text: str
    context: list[dict[str, Any]]
    attributes: dict[str, Any]


class ItemView(ItemSummary):
    """An item with all that leads to a decision."""

    assessment: dict[str, Any] | None
    """The model's assessment; null if it could not judge."""
    policy: dict[str, Any]
    """The policy that sent the item to review."""
    role: str
    author_id: str | None
    created_at: str | None
    opened_at: int
    appeal: str | None
    """Null for roles that may not see content: it holds the words of the author."""
    opinions: list[OpinionView]
    history: list[StepView]
    content: ContentView | None
    """Null for roles that may not see it, once the item has lost it, and in the answer to a request that is repeated
    when the lease is over."""


class QueueView(BaseModel):
    """The waiting items of one tenant and language."""

    model_config = ConfigDict(frozen=True)

    tenant_id: str
    language: str
    waiting: Annotated[int, Field(ge=0)]
    """Items that somebody can take now."""
    escalated: Annotated[int, Field(ge=0)]
    """Those of them that wait for a person with the role `senior`."""
    leased: Annotated[int, Field(ge=0)]
    overdue: Annotated[int, Field(ge=0)]
    """Items over their deadline, leased ones included."""
    oldest_since: int | None
    """Since when the oldest of these items waits."""


def summary(item: Item, person: Person, now_ms: int) -> ItemSummary:
    """Give an item without its content, as this person may see it."""
    return ItemSummary(**_summary(item, parsed(item.verdict), now_ms, _is_blind(item, person)))


def full(item: Item, person: Person, now_ms: int) -> ItemView:
    """Give an item as this person may see it. The second of two people does not see what the first one decided."""
    verdict = parsed(item.verdict)
    is_blind, reads = _is_blind(item, person), person.role in READS_CONTENT
    content = parsed(item.content) if item.has_content and reads else None
    return ItemView(
        **_summary(item, verdict, now_ms, is_blind),
        assessment=verdict.get("assessment"),
        policy=verdict["policy"],
        role=verdict["role"],
        author_id=verdict.get("author_id"),
        created_at=verdict.get("created_at"),
        opened_at=item.opened_at,
        appeal=item.appeal if reads else None,
        opinions=[] if is_blind else [_opinion(opinion, reads) for opinion in (*item.opinions, *_pending(item))],
        history=[
            StepView(
                at=step.at,
                action=step.action,
                by=step.by,
                role=step.role,
                decision=None if is_blind else step.decision,
            )
            for step in item.history
        ],
        content=None if content is None else ContentView(**content),
    )


def _is_blind(item: Item, person: Person) -> bool:
    """Whether the first of two decisions would influence this person."""
    is_first = item.four_eyes and item.pending is not None and item.pending.by != person.name
    return (is_first or item.status == "second_opinion") and person.role in READS_CONTENT


def _pending(item: Item) -> tuple[Opinion, ...]:
    return () if item.pending is None else (item.pending,)


def _opinion(opinion: Opinion, reads: bool) -> OpinionView:
    return OpinionView(
        by=opinion.by,
        role=opinion.role,
        at=opinion.at,
        decision=opinion.decision,
        note=opinion.note if reads else None,
        severity=opinion.severity,
        categories=None if opinion.categories is None else list(opinion.categories),
    )


def _summary(item: Item, verdict: dict[str, Any], now_ms: int, is_blind: bool) -> dict[str, Any]:
    assessment = verdict.get("assessment") or {}
    lease, pending = item.holder(now_ms), item.pending
    return {
        "verdict_id": item.verdict_id,
        "tenant_id": item.tenant_id,
        "language": item.language,
        "surface": verdict["surface"],
        "status": item.status,
        "severity": assessment.get("severity"),
        "categories": assessment.get("categories", []),
        "reasons": verdict["reasons"],
        "waiting_since": item.waiting_since,
        "due_at": item.due_at,
        "is_overdue": item.is_waiting and now_ms > item.due_at,
        "four_eyes": item.four_eyes,
        "lease": None if lease is None else LeaseView(by=lease.by, since=lease.since, until=lease.until),
        "pending": None
        if pending is None
        else PendingView(
            by=pending.by,
            at=pending.at,
            decision=None if is_blind else pending.decision,
            undo_until=item.settles_at or pending.at,
        ),
        "current": item.current,
        "current_decision": item.current_decision,
        "closed_because": item.closed_because,
    }
