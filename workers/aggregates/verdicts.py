"""Reads from a verdict what the tables need, whatever the version of the worker that wrote it. Pure.

A record that is not a verdict is skipped, and never stops the worker.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import orjson
from msgspec import Struct

from schemas.forget import milliseconds
from schemas.taxonomy import Category, Decision, Severity
from workers.core.frames import split

DECISIONS = tuple(decision.value for decision in Decision)
SEVERITIES = (None, *(severity.value for severity in Severity))
CATEGORIES = tuple(category.value for category in Category)

_DECISION = {name: number for number, name in enumerate(DECISIONS)}
_SEVERITY = {name: number for number, name in enumerate(SEVERITIES)}
_CATEGORY = {name: 1 << number for number, name in enumerate(CATEGORIES)}

MAX_ID_CHARS = 512
"""A longer id of a tenant, an author or a thread is not one of a verdict of ours."""

MAX_TIME_MS = 253_402_300_799_999
"""The end of the year 9999, in milliseconds since 1970-01-01 UTC: later times cannot be written as a date."""

_VERDICT_ID = re.compile("[0-9a-f]{32}")
_SIMILARITY = re.compile("[0-9a-f]{16}")

Skip = Literal["tombstone", "junk", "duplicate"]


class Seen(Struct, array_like=True, frozen=True, gc=False):
    """One verdict as the tables count it: numbers in the place of names.

    `partition` and `offset` are its position in the verdict topic. `decision` indexes `DECISIONS`, `severity`
    `SEVERITIES`; `categories` has one bit for each of `CATEGORIES`. Of what a person corrected, None was not corrected.
    """

    partition: int
    offset: int
    verdict_id: str
    received_ms: int
    sent_ms: int | None
    decision: int
    severity: int
    categories: int
    author_id: str | None = None
    supersedes: str | None = None
    superseded_decision: int | None = None
    corrected_severity: int | None = None
    corrected_categories: int | None = None
    similarity: int | None = None

    def as_verdict(self) -> dict[str, Any]:
        """Return the fields by which strikes are counted, as a `schemas.verdict.Verdict` has them."""
        severity = SEVERITIES[self.severity]
        assessment = None if severity is None else {"severity": severity, "categories": _names(self.categories)}
        corrected_severity, corrected_categories = self.corrected_severity, self.corrected_categories
        return {
            "verdict_id": self.verdict_id,
            "decision": DECISIONS[self.decision],
            "duplicate_of": None,
            "assessment": assessment,
            "supersedes": self.supersedes,
            "corrected": {
                "severity": None if corrected_severity is None else SEVERITIES[corrected_severity],
                "categories": None if corrected_categories is None else _names(corrected_categories),
            },
            "source": {"timestamp": self.sent_ms},
            "timings": {"received_at": self.received_ms},
        }


class Read(NamedTuple):
    """A verdict, its tenant and the thread that its attributes name."""

    tenant_id: str
    thread: str | None
    seen: Seen


class _Assessment(Struct, gc=False):
    severity: str
    categories: list[str]


class _Source(Struct, gc=False):
    timestamp: int | None = None


class _Timings(Struct, gc=False):
    received_at: int


class _Corrected(Struct, gc=False):
    severity: str | None = None
    categories: list[str] | None = None


class _Verdict(Struct, gc=False):
    """The fields that are read, of the types that they have in the version of today."""

    verdict_id: str
    tenant_id: str
    decision: str
    timings: _Timings
    author_id: str | None = None
    assessment: _Assessment | None = None
    duplicate_of: str | None = None
    source: _Source | None = None
    attributes: dict[str, Any] | None = None
    similarity: str | None = None
    supersedes: str | None = None
    superseded_decision: str | None = None
    corrected: _Corrected | None = None


class _Forget(Struct, gc=False):
    tenant_id: str
    author_id: str
    requested_at: str


_decode = msgspec.json.Decoder(_Verdict).decode
_decode_forget = msgspec.json.Decoder(_Forget).decode


def read(value: bytes | None, *, partition: int, offset: int, timestamp_ms: int, thread: str) -> Read | Skip:
    """Read one record of the verdict topic. What it returns can be counted, whatever the record holds.

    `timestamp_ms` is Kafka's timestamp of the record: the time of a verdict that has none. `thread` names the attribute
    with the thread; empty for none.
    """
    if value is None:
        return "tombstone"
    content = split(value)[1]
    try:
        found = _decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        by_field = _by_field(content, timestamp_ms)
        if by_field is None:
            return "junk"
        found = by_field
    decision = _DECISION.get(found.decision)
    if decision is None or not (_is_id(found.tenant_id) and _is_verdict_id(found.verdict_id)):
        return "junk"
    if found.supersedes is not None and not _is_verdict_id(found.supersedes):
        return "junk"
    received_ms = found.timings.received_at
    if not is_time(received_ms):
        received_ms = timestamp_ms
    if not is_time(received_ms):
        return "junk"
    if found.duplicate_of is not None and found.supersedes is None:
        return "duplicate"
    assessment, corrected = found.assessment, found.corrected
    sent_ms = None if found.source is None else found.source.timestamp
    name = (found.attributes or {}).get(thread) if thread else None
    superseded = found.superseded_decision
    return Read(
        found.tenant_id,
        name if _is_id(name) else None,
        Seen(
            partition=partition,
            offset=offset,
            verdict_id=found.verdict_id,
            received_ms=received_ms,
            sent_ms=sent_ms if sent_ms is not None and is_time(sent_ms) else None,
            decision=decision,
            severity=0 if assessment is None else _SEVERITY.get(assessment.severity, 0),
            categories=0 if assessment is None else _bits(assessment.categories),
            author_id=found.author_id if _is_id(found.author_id) else None,
            supersedes=found.supersedes,
            superseded_decision=None if superseded is None else _DECISION.get(superseded),
            corrected_severity=None
            if corrected is None or corrected.severity is None
            else _SEVERITY.get(corrected.severity),
            corrected_categories=None
            if corrected is None or corrected.categories is None
            else _bits(corrected.categories),
            similarity=_hash(found.similarity),
        ),
    )


def read_forget(value: bytes | None) -> tuple[str, str, int] | None:
    """Read the tenant, the author and the time in milliseconds of a request to forget; None: the record is none."""
    try:
        found = _decode_forget(value or b"")
        if not (_is_id(found.tenant_id) and _is_id(found.author_id)):
            return None
        return found.tenant_id, found.author_id, milliseconds(found.requested_at)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def is_time(time_ms: int) -> bool:
    """Whether a number of milliseconds since 1970-01-01 UTC is a time that can be written as a date."""
    return 0 <= time_ms <= MAX_TIME_MS


def _by_field(content: bytes, timestamp_ms: int) -> _Verdict | None:
    """Read field by field, and leave out each field that is of another type than today."""
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict) or not all(
        isinstance(document.get(name), str) for name in ("verdict_id", "tenant_id", "decision")
    ):
        return None
    fields: dict[str, Any] = {"timings": _Timings(timestamp_ms)}
    for field in msgspec.structs.fields(_Verdict):
        if field.name in document:
            try:
                fields[field.name] = msgspec.convert(document[field.name], field.type)
            except (msgspec.ValidationError, RecursionError):
                continue
    return _Verdict(**fields)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARS


def _is_verdict_id(value: str) -> bool:
    return _VERDICT_ID.fullmatch(value) is not None


def _bits(categories: Sequence[str]) -> int:
    bits = 0
    for category in categories:
        bits |= _CATEGORY.get(category, 0)
    return bits


def _names(bits: int) -> list[str]:
    return [name for name, bit in _CATEGORY.items() if bits & bit]


def _hash(similarity: str | None) -> int | None:
    return int(similarity, 16) if similarity is not None and _SIMILARITY.fullmatch(similarity) else None
