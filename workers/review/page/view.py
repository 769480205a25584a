"""What the page shows of a review item: `workers.review.views.ItemView` in words. Pure.

Texts that others wrote become parts (`marked`), which the templates escape. Everything else is plain text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from schemas.review_command import ReviewRole
from workers.review.page.marked import Part, marked
from workers.review.page.times import Moment, moment
from workers.review.people import DECIDES, READS_CONTENT, Person
from workers.review.views import ItemSummary, ItemView, OpinionView
from workers.shown import printable

PREVIEW_CHARS = 400
"""How much of a hidden text its blurred picture has."""

_SAID: Mapping[str, str] = {
    "arrived": "sent it to review",
    "leased": "took it",
    "released": "gave it back",
    "lease_ended": "held it too long: it went back into the queue",
    "decided": "decided",
    "undone": "undid the decision",
    "skipped": "skipped it",
    "reopened": "reopened it",
    "appealed": "appealed",
    "escalated": "sent it to a senior person",
    "second_opinion": "asked for a second person's decision",
    "published": "published the verdict",
    "republished": "published the verdict again, because it was missing",
    "expired": "removed the content: its time was over",
    "forgotten": "removed author and content",
}
_WITH_DECISION = frozenset({"decided", "published"})
_READINGS = {"raw": "as it is", "normalized": "with disguises undone"}


class Turn(NamedTuple):
    """A text with its author's role. `preview` is its beginning, to be blurred."""

    role: str
    parts: Sequence[Part]
    preview: str


class Entry(NamedTuple):
    """A line of the history."""

    at: Moment
    who: str
    what: str
    decision: str | None = None
    note: Sequence[Part] = ()


class Offer(NamedTuple):
    """A button with which somebody changes an item that this person does not have on lease."""

    path: str
    label: str
    asks: str = ""


WITH_NOTE = {
    "reopen": Offer("reopen", "Reopen", "Why decide again?"),
    "appeal": Offer("appeal", "Appeal", "What does the author say?"),
}
"""The buttons for a decided item, by their path."""


class Page(NamedTuple):
    """One item as the page shows it to one person."""

    verdict_id: str
    title: str
    chips: Sequence[str]
    strong_chips: Sequence[str]
    due: Moment
    is_late: bool
    turns: Sequence[Turn]
    why_no_text: str
    chars: int
    marks: int
    appeal: Sequence[Part]
    policy: str
    reasons: Sequence[str]
    severity: str | None
    scores: Sequence[tuple[str, float]]
    categories: Sequence[str]
    category_scores: Sequence[tuple[str, float]]
    remarks: Sequence[str]
    history: Sequence[Entry]
    details: Sequence[tuple[Sequence[Part], Sequence[Part]]]
    is_mine: bool
    until: Moment | None
    may_escalate: bool
    status: str
    offers: Sequence[Offer]


def page_of(item: ItemView, person: Person, now_ms: int) -> Page:
    """Give what a person sees of an item."""
    assessment = item.assessment or {}
    turns = _turns(item)
    mine = item.lease if item.lease is not None and item.lease.by == person.name else None
    return Page(
        verdict_id=item.verdict_id,
        title=title_of(item),
        chips=[
            printable(item.tenant_id),
            item.surface,
            *_written_by(item),
            printable(item.language or "language not known"),
        ],
        strong_chips=_strong_chips(item),
        due=moment(item.due_at, now_ms),
        is_late=item.is_overdue,
        turns=turns,
        why_no_text=_why_no_text(item, person),
        chars=len(item.content.text) if item.content is not None else 0,
        marks=sum(part.times for part in turns[-1].parts if part.mark) if turns else 0,
        appeal=marked(item.appeal) if item.appeal and person.role in READS_CONTENT else (),
        policy=printable(f"{item.policy['id']}, version {item.policy['version']}"),
        reasons=[printable(reason) for reason in item.reasons],
        severity=item.severity,
        scores=[(name.capitalize(), float(score)) for name, score in (assessment.get("scores") or {}).items()],
        categories=item.categories,
        category_scores=_by_score(assessment.get("category_scores") or {}),
        remarks=_remarks(assessment),
        history=_history(item, now_ms, sees_notes=person.role in READS_CONTENT),
        details=_details(item),
        is_mine=mine is not None,
        until=moment(mine.until, now_ms) if mine is not None else None,
        may_escalate=item.status != "escalated",
        status=_status(item, person, now_ms),
        offers=_offers(item, person),
    )


def title_of(item: ItemSummary) -> str:
    """Say what the model found."""
    if item.severity is None:
        return "Not judged"
    return f"{item.severity}: {', '.join(item.categories)}" if item.categories else item.severity


def _written_by(item: ItemView) -> list[str]:
    return ["written by an assistant"] if item.role == "assistant" else []


def _strong_chips(item: ItemView) -> list[str]:
    chips = ["appeal"] if item.appeal is not None or item.status == "appealed" else []
    if item.status == "escalated":
        chips.append("escalated")
    if item.status == "second_opinion":
        chips.append("second opinion")
    elif item.four_eyes:
        chips.append("needs two people")
    return chips


def _turns(item: ItemView) -> list[Turn]:
    if item.content is None:
        return []
    texts = [(f"{turn['role']}, earlier", str(turn["text"])) for turn in item.content.context]
    turns = []
    for role, text in [*texts, (f"{item.role}, judged", item.content.text)]:
        parts = marked(text)
        turns.append(Turn(role, parts, "".join(part.text for part in parts)[:PREVIEW_CHARS]))
    return turns


def _why_no_text(item: ItemView, person: Person) -> str:
    if person.role not in READS_CONTENT:
        return f"The role {person.role.value} does not see texts."
    return "" if item.content is not None else "The text was deleted in time."


def _by_score(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(((name, float(score)) for name, score in scores.items()), key=lambda one: -one[1])


def _remarks(assessment: Mapping[str, Any]) -> list[str]:
    remarks = []
    views = {one["name"]: one["severity"] for one in assessment.get("views") or ()}
    if len(set(views.values())) > 1:
        read = ", ".join(f"{severity} {_READINGS.get(name, name)}" for name, severity in views.items())
        remarks.append(f"The model found the text {read}.")
    if assessment.get("truncated_windows"):
        remarks.append("The text is too long: the model has not read all of it.")
    return remarks


def _history(item: ItemView, now_ms: int, *, sees_notes: bool) -> list[Entry]:
    opinions = {(one.by, one.at): one for one in item.opinions}
    entries = []
    for step in item.history:
        opinion = opinions.get((step.by, step.at)) if step.action == "decided" else None
        what = _SAID.get(step.action, step.action)
        entries.append(
            Entry(
                moment(step.at, now_ms),
                "Guardline" if step.role == ReviewRole.SYSTEM else step.by,
                what if opinion is None else _corrected(opinion) + what,
                step.decision if step.action in _WITH_DECISION else None,
                marked(opinion.note) if opinion is not None and opinion.note and sees_notes else (),
            )
        )
    return entries


def _corrected(opinion: OpinionView) -> str:
    found = [*([opinion.severity] if opinion.severity else []), *(opinion.categories or ())]
    return f"corrected the model ({', '.join(found)}) and " if found else ""


def _details(item: ItemView) -> list[tuple[Sequence[Part], Sequence[Part]]]:
    pairs = {
        "verdict": item.verdict_id,
        "newest verdict": item.current,
        "author": item.author_id or "not known",
        "created": item.created_at or "not known",
        "model": ((item.assessment or {}).get("model") or {}).get("name") or "none",
    }
    attributes = item.content.attributes if item.content is not None else {}
    for name, value in attributes.items():
        pairs[f"attribute {name}"] = value if isinstance(value, str) else orjson.dumps(value).decode()
    return [(marked(name), marked(str(value))) for name, value in pairs.items()]


def _status(item: ItemView, person: Person, now_ms: int) -> str:
    if item.pending is not None:
        who = "You" if item.pending.by == person.name else item.pending.by
        decided = f"{who} decided {item.pending.decision}." if item.pending.decision else f"{who} decided."
        return f"{decided} The decision takes effect in a few seconds."
    if item.lease is not None:
        return f"{item.lease.by} has this item until {moment(item.lease.until, now_ms).clock}."
    if item.status == "decided":
        people = ", ".join(dict.fromkeys(one.by for one in item.opinions)) or "A person"
        return f"{people} decided {item.current_decision}."
    if item.status == "closed":
        return "It was closed: " + ("its time was over." if item.closed_because == "expired" else "author forgotten.")
    return "Nobody has this item now."


def _offers(item: ItemView, person: Person) -> list[Offer]:
    """Give the buttons that may help. The service checks each command again."""
    if person.role not in DECIDES or item.lease is not None:
        return []
    is_senior = person.role is ReviewRole.SENIOR
    if item.pending is not None:
        return [Offer("undo", "Undo")] if item.pending.by == person.name else []
    if item.status == "decided":
        if not is_senior or item.content is None:
            return []
        return [*WITH_NOTE.values()]
    return (
        [Offer("lease", "Take this item")]
        if item.status != "closed" and (is_senior or item.status != "escalated")
        else []
    )
