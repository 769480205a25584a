"""Remembers which authors were forgotten, so that what was in flight or waiting at that time is not held again. Pure.

A worker may read a request to forget before it reads older records about the author: it was down, or the records are in
another partition.
"""

from __future__ import annotations

from schemas.forget import Forget, milliseconds


class Forgotten:
    """The time of the newest request for each author. Its size is that of the forget topic: one entry an author."""

    def __init__(self) -> None:
        self._until_ms: dict[tuple[str, str], int] = {}

    def __len__(self) -> int:
        """Return the number of authors."""
        return len(self._until_ms)

    def add(self, request: Forget) -> None:
        """Take a request. One that is read again, or that is older than another one, changes nothing."""
        self.note(request.tenant_id, request.author_id, milliseconds(request.requested_at))

    def note(self, tenant_id: str, author_id: str, until_ms: int) -> None:
        """Take a request that was made at this time."""
        author = (tenant_id, author_id)
        self._until_ms[author] = max(until_ms, self._until_ms.get(author, until_ms))

    def covers(self, tenant_id: str, author_id: str | None, sent_ms: int | None, received_ms: int) -> bool:
        """Say whether a request covers a verdict or review item with these times.

        `sent_ms` is its `source.timestamp`: an event that waited in its topic at the time of the request was received
        later. `received_ms` is its `timings.received_at`.
        """
        if author_id is None or not self._until_ms:
            return False
        happened_ms = received_ms if sent_ms is None else min(sent_ms, received_ms)
        return happened_ms <= self._until_ms.get((tenant_id, author_id), -1)
