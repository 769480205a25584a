"""Signals: when a threshold is crossed, and the record that says so. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from workers.aggregates.rows import Key, Raised, Row

SCHEMA_VERSION = 1
KINDS = {"author": "author_strikes", "tenant": "harm_rate", "thread": "thread", "content": "similar_content"}


class Crossing(NamedTuple):
    """A threshold of one row that was crossed, and what it was crossed by."""

    kind: str
    state: str
    key: bytes
    value: bytes
    tenant_id: str
    threshold_name: str


def crossed(
    key: Key,
    row: Row,
    name: str,
    *,
    is_raised: bool,
    value: float,
    threshold: float,
    evidence: Sequence[str],
    at_ms: int,
    subject: str | None = None,
) -> Crossing:
    """Note in the row that a threshold is in force from now on, or no longer; return the signal.

    Guarantee: the same row, verdicts and time give the same ids, so a signal that is written again is recognised. A
    second crossing has another id, because the row counts its crossings.
    """
    if is_raised:
        row.crossings += 1
        crossing_id = _hash(*key, name, str(row.crossings), *evidence[:1])
        row.raised[name] = Raised(crossing_id, at_ms, threshold)
    else:
        crossing_id = row.raised.pop(name).crossing_id
    state = "raised" if is_raised else "cleared"
    threshold_name = name if key.kind == "author" else KINDS[key.kind]
    if subject is None:
        subject = key.subject or key.tenant_id
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "signal_id": _hash(crossing_id, state),
        "crossing_id": crossing_id,
        "kind": KINDS[key.kind],
        "state": state,
        "tenant_id": key.tenant_id,
        "subject": subject,
        "threshold_name": threshold_name,
        "value": value,
        "threshold": threshold,
        "evidence": list(evidence),
        "at": datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    record_key = f"{key.tenant_id}|{subject}".encode()
    return Crossing(KINDS[key.kind], state, record_key, orjson.dumps(document), key.tenant_id, threshold_name)


def level(
    key: Key,
    row: Row,
    *,
    value: float,
    raise_at: float,
    clear_below: float,
    may_raise: bool,
    evidence: Sequence[str],
    at_ms: int,
) -> list[Crossing]:
    """Compare a value with the one threshold of a tenant or a thread; return the signal, if it is crossed."""
    name = KINDS[key.kind]
    is_raised = name in row.raised
    if not is_raised and may_raise and value >= raise_at:
        return [
            crossed(key, row, name, is_raised=True, value=value, threshold=raise_at, evidence=evidence, at_ms=at_ms)
        ]
    if is_raised and value < clear_below:
        return [
            crossed(key, row, name, is_raised=False, value=value, threshold=clear_below, evidence=evidence, at_ms=at_ms)
        ]
    return []


def _hash(*parts: str) -> str:
    return blake2b(orjson.dumps(parts), digest_size=16).hexdigest()
