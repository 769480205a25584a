"""The superseding verdict of a decided item. Pure: the same item always gives the same verdict."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from workers.review.item import Item, parsed

MAX_NAMES_CHARS = 256
"""The longest `decided_by` that the contract of verdicts allows."""


def superseding_id(pipeline: str, command_id: str) -> str:
    """Give the id (32 hex digits, BLAKE2b-128) of the verdict that a command causes. A repeat has the same."""
    return blake2b(f"{len(pipeline)}|review|{pipeline}{command_id}".encode(), digest_size=16).hexdigest()


def superseding(item: Item) -> dict[str, Any]:
    """Give the newest superseding verdict of an item that was decided.

    The last of the opinions that made it has the note and the corrections.
    """
    opinions = item.settled
    last = opinions[-1]
    corrected = None
    if last.severity is not None or last.categories is not None:
        corrected = {"severity": last.severity, "categories": last.categories}
    document = parsed(item.verdict)
    assessment = document.pop("assessment", None)
    return {
        **document,
        "verdict_id": item.current,
        "decision": last.decision,
        "supersedes": item.previous,
        "superseded_decision": item.previous_decision,
        "decided_by": ", ".join(dict.fromkeys(opinion.by for opinion in opinions))[:MAX_NAMES_CHARS],
        "deciders": item.everybody,
        "note": last.note,
        "corrected": corrected,
        # Comes last, as in every verdict.
        "assessment": assessment,
    }
