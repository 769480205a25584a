"""The demo's messages: short texts in 24 languages, written for it, each with the harm that its author sees in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.taxonomy import Category, Severity

TENANTS = ("arcade", "campus", "gazette")
_ROUNDS = 6
_AUTHORS, _ROOMS = 37, 23


@dataclass(frozen=True)
class Message:
    """One text. `category` is None if it is harmless."""

    language: str
    category: Category | None
    text: str


def messages() -> list[Message]:
    """Read the texts."""
    lines = Path(__file__).with_name("messages.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [Message(row["language"], row["category"] and Category(row["category"]), row["text"]) for row in rows]


def events() -> list[dict[str, Any]]:
    """Give the events: each text twice for each tenant, from different authors."""
    texts = messages()
    return [
        {
            "event_id": f"demo-{number:04}",
            "tenant_id": TENANTS[(number + number // len(texts)) % len(TENANTS)],
            "surface": "comment" if number % 4 == 0 else "chat",
            "author_id": f"author-{number % _AUTHORS}",
            "language": texts[number % len(texts)].language,
            "text": texts[number % len(texts)].text,
            "attributes": {"conversation_id": f"room-{number % _ROOMS}"},
        }
        for number in range(_ROUNDS * len(texts))
    ]


def compared(assessments: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say what the guard found: an example of each category, how much is right, and each mistake.

    A text is right if it is Safe and harmless, or neither.

    Args:
        assessments: what the guard says of each text, by the text.
    """
    judged = [(message, assessments[message.text]) for message in messages() if message.text in assessments]
    found = [(message, said) for message, said in judged if message.category and not _is_safe(said)]
    named = [(message, said) for message, said in found if message.category in said["categories"]]
    examples = {message.category: f"{message.category}: {message.text!r}" for message, _ in reversed(named)}
    mistakes = [
        f"wrong: {said['severity']}, and the author says {message.category or 'harmless'}: {message.text!r}"
        for message, said in judged
        if _is_safe(said) == bool(message.category)
    ]
    total = (
        f"the guard is right about {len(judged) - len(mistakes)} of {len(judged)} texts, and names the author's "
        f"category for {len(named)} of the {len(found)} that it finds"
    )
    return [*(examples[category] for category in Category if category in examples), total, *mistakes]


def _is_safe(said: Mapping[str, Any]) -> bool:
    return bool(said["severity"] == Severity.SAFE)
