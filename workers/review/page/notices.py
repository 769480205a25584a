"""The lines above the page: what the last request has done, or why not. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fastapi import Request

from workers.review.people import Person
from workers.review.refusal import Refusal
from workers.review.views import ItemSummary, QueueView

NONE_FOR_YOU = (
    "No other item is for you now. The button for the next item also gives those that you skipped. Escalated items "
    "wait for a senior person, and items on which you have decided wait for somebody else."
)


class Notice(NamedTuple):
    """A line above the page. `undo` is the id of the item whose decision can still be undone.

    `taken` is the id of the item that the person got after that decision: an undo gives it back.
    """

    kind: str
    text: str
    undo: str = ""
    left_s: float = 0
    taken: str = ""


def none_for(request: Request, queues: Sequence[QueueView]) -> Notice | None:
    """Say why a person got no item, although items wait."""
    is_waiting = any(queue.waiting for queue in queues)
    return Notice("note", NONE_FOR_YOU) if request.query_params.get("none") and is_waiting else None


def said(item: ItemSummary, person: Person, now_ms: int) -> Notice | None:
    """Say what became of a decision, from the state of its item."""
    pending = item.pending
    decision = None if pending is None else pending.decision
    if pending is not None and decision is not None and pending.by == person.name:
        left_s = max(0.0, (pending.undo_until - now_ms) / 1000)
        words = {"allow": "Allowed.", "block": "Blocked.", "escalate": "Sent to a senior person."}[decision]
        return Notice("done", f"{words} It takes effect in a few seconds.", item.verdict_id, round(left_s, 1))
    if item.lease is None:
        return Notice("done", f"Recorded: the item is {item.status.replace('_', ' ')} now.")
    return None


def sentence_of(refusal: Refusal) -> str:
    """Give the sentence of a refusal as it is on a page."""
    sentence = refusal.sentence[:1].upper() + refusal.sentence[1:]
    return sentence if sentence.endswith(".") else f"{sentence}."
