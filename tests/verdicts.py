"""Verdicts for tests of what comes after them."""

from __future__ import annotations

from typing import Any

from schemas.taxonomy import Category
from schemas.verdict import Verdict

AT_MS = 1_795_824_000_000
"""2026-11-28, midnight in UTC."""

CANARY = "canary"
NAME = f"{CANARY}-alice"


def assessment(severity: str, found: list[Category]) -> dict[str, Any]:
    scores = {"safe": 0.1, "controversial": 0.2, "unsafe": 0.7}
    return {
        "severity": severity,
        "categories": found,
        "refusal": None,
        "scores": scores,
        "category_scores": dict.fromkeys(found, 0.5),
        "model": {"name": f"/home/{NAME}/model", "revision": CANARY, "template_hash": CANARY},
        "windows": 1,
        "truncated_windows": 0,
        "truncated_context_tokens": 0,
        "views": [{"name": "raw", "severity": severity, "scores": scores}],
    }


def verdict(**changes: Any) -> dict[str, Any]:
    """Return a verdict that blocks. Each field that can name a person or hold a text has a canary."""
    document = {
        "verdict_id": "0a" * 16,
        "event_id": f"{NAME}-1",
        "tenant_id": f"{CANARY}-tenant",
        "surface": "chat",
        "author_id": NAME,
        "language": "en",
        "role": "user",
        "assessment": assessment("Unsafe", [Category.VIOLENT]),
        "decision": "block",
        "reasons": ["Unsafe:Violent"],
        "policy": {"id": NAME, "version": 3, "digest": CANARY},
        "source": {"topic": f"{CANARY}.chat", "partition": 1, "offset": 42, "timestamp": AT_MS - 60_000},
        "duplicate_of": None,
        "timings": {"received_at": AT_MS - 1_000},
        "created_at": "2026-11-27T12:00:00Z",
        "attributes": {"user": NAME},
        "ignored_fields": [],
        "truncated_text_chars": 0,
        **changes,
    }
    return Verdict.model_validate(document).model_dump(mode="json")


def superseding(before: str, decision: str = "block", **changes: Any) -> dict[str, Any]:
    return verdict(
        supersedes="0b" * 16, superseded_decision=before, decided_by=NAME, note=f"{CANARY} said", decision=decision,
        **changes,
    )  # fmt: skip
