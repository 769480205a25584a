"""What the formats of endpoints have in common: the body of a delivery, the call, and how the answer is read.

A format is a small object without I/O. The rest of this room (order, retries, breaker, addresses, dead letters) is the
same for all formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from workers.actions.answers import read_status
from workers.actions.delivery import Answer, Call, Delivery, Result
from workers.settings.action_sections import Kind


class Format(Protocol):
    """Turns records into calls. Never blocks."""

    max_batch: int
    """The most deliveries in one call. They have different keys."""

    answer_bytes: int
    """How much of an answer's body is read. The rest is discarded."""

    names_authors: bool
    """Whether the bodies hold data of authors. If so, a request to forget an author ends deliveries that wait."""

    def body(self, kind: Kind, document: Mapping[str, Any], value: bytes, at_ms: int) -> bytes | None:
        """Return the bytes of one delivery, or None if this format has no use for the record: then it is skipped.

        `document` is the decoded `value`, the JSON of a verdict, a review item or a signal. The same record must
        always have the same bytes. They are also the value of the dead letter, from which a delivery is repeated.

        Raises:
            LookupError, TypeError, ValueError: the record lacks a field. It becomes a dead letter.
        """

    def call(self, batch: Sequence[Delivery], now_s: float) -> Call:
        """Return the request for one to `max_batch` deliveries. `now_s`: seconds since 1970."""

    def read(self, batch: Sequence[Delivery], answer: Answer) -> Sequence[Result]:
        """Return what the answer means for each delivery of the batch."""


class ByStatus:
    """The part of a format that most share: the status alone says what an answer means, for the whole batch."""

    max_batch = 1
    answer_bytes = 4_096
    names_authors = True

    def read(self, batch: Sequence[Delivery], answer: Answer) -> Sequence[Result]:
        """See `Format.read`."""
        return [read_status(answer)] * len(batch)
