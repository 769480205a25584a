"""Why a command or a request is refused: an HTTP status and a sentence for a person."""

from __future__ import annotations

from workers.errors import GuardlineError


class Refusal(GuardlineError):
    """Nothing was changed.

    `status` is the HTTP status. Where somebody else was first, `by` and `at_ms` say who, and when.
    """

    def __init__(self, status: int, sentence: str, *, by: str | None = None, at_ms: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.by = by
        self.at_ms = at_ms


def not_allowed(sentence: str) -> Refusal:
    """Give the refusal of what a role may not do."""
    return Refusal(403, sentence)


def conflict(sentence: str, *, by: str | None = None, at_ms: int | None = None) -> Refusal:
    """Give the refusal of what the item's state does not permit."""
    return Refusal(409, sentence, by=by, at_ms=at_ms)
