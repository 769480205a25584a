"""Finds the author whom a record names, so that a request to forget reaches its delivery. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.forget import milliseconds
from workers.actions.delivery import Delivery
from workers.core.forgotten import Forgotten
from workers.settings.action_sections import Kind

AUTHOR_SIGNAL = "author_strikes"
"""The kind of signal whose subject is an author."""


def author_of(kind: Kind, document: Mapping[str, Any]) -> tuple[str | None, int]:
    """Return the author of a record, or None, and when its event happened, in milliseconds since 1970.

    That time is the earlier one of `source.timestamp` and `timings.received_at`, as `workers.core.forgotten` has it.
    Without both it is 0, so that any request covers the record.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: the record lacks a field, or a field has another type.
    """
    if kind == "signal":
        if document["kind"] != AUTHOR_SIGNAL:
            return None, 0
        author_id, times = document["subject"], [milliseconds(document["at"])]
    else:
        verdict = document["verdict"] if kind == "appeal" else document
        author_id = verdict.get("author_id")
        if author_id is None:
            return None, 0
        found = ((verdict.get("source") or {}).get("timestamp"), (verdict.get("timings") or {}).get("received_at"))
        times = [time for time in found if time is not None]
    if not isinstance(author_id, str) or not all(isinstance(time, int) for time in times):
        # Later, such a value would end the worker.
        raise TypeError("an author's id is not a text, or a time is not a number of milliseconds")
    return author_id, min(times, default=0)


def is_forgotten(forgotten: Forgotten, delivery: Delivery) -> bool:
    """Say whether a request to forget covers a delivery."""
    return forgotten.covers(delivery.tenant_id, delivery.author_id, None, delivery.happened_ms)
