"""Sums usage by tenant and minute, for the usage topic and for `guardline usage`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Literal

import orjson
from msgspec import Struct

from workers.core.decide import compact
from workers.core.frames import split
from workers.core.records import Event, Finished, Output, Source, Used

SCHEMA_VERSION = 1

MINUTE_MS = 60_000

MIN_USAGE_BYTES = 4_096
"""Enough for one record of the usage topic, whatever its tenant is called."""


Period = Literal["minute", "hour", "day"]

_NAMED_BY: dict[Period, tuple[int, str]] = {"minute": (16, ":00Z"), "hour": (13, ":00:00Z"), "day": (10, "T00:00:00Z")}
"""How many characters of a time in UTC name its period, and the rest of the time at which the period begins."""


class Sum(Struct):
    """The usage of some verdicts, in the units of `schemas.usage.Usage`."""

    events: int = 0
    cache_hits: int = 0
    tokens: int = 0
    engine_ms: float = 0.0


def used_by(event: Event) -> Used:
    """Give what the verdict on a judged event adds to the usage of its tenant."""
    minute = event.source.received_at_ms // MINUTE_MS
    if event.engine_ms is None:
        return Used(event.body["tenant_id"], minute, 0, 0.0, event.assessment is not None)
    tokens = 0 if event.assessment is None else event.assessment.get("tokens", 0)
    return Used(event.body["tenant_id"], minute, tokens, event.engine_ms, False)


Mark = Callable[[Output, Source, int], Output]
"""Puts marks on a record of the usage topic, which is given with the first record that it counts, and its minute."""


def outputs_of(topic: str, records: Iterable[Finished], mark: Mark | None = None) -> list[Output]:
    """Give the records for the usage topic: one for each tenant and minute, keyed by tenant."""
    sums: dict[tuple[str, int], Sum] = {}
    firsts: dict[tuple[str, int], Source] = {}
    for record in records:
        for used in record.usage:
            place = (used.tenant_id, used.minute)
            total = sums.get(place)
            if total is None:
                total = sums[place] = Sum()
                firsts[place] = record.source
            total.events += 1
            total.cache_hits += used.is_cache_hit
            total.tokens += used.tokens
            total.engine_ms += used.engine_ms
    outputs = {place: Output(topic, place[0].encode(), _written(*place, total)) for place, total in sums.items()}
    if mark is None:
        return list(outputs.values())
    return [mark(output, firsts[place], place[1]) for place, output in outputs.items()]


class Usages:
    """Sums records of the usage topic by tenant, and by period if one is given.

    `tenants`: only these; empty: all. Minutes that begin before `since` or not before `until`, both in UTC and in
    seconds since 1970, are left out.
    """

    def __init__(
        self, *, tenants: Iterable[str] = (), since: float | None, until: float | None, by: Period | None
    ) -> None:
        self._tenants = frozenset(tenants)
        self._since = "" if since is None else _utc(since)
        self._until = "~" if until is None else _utc(until)  # "~" comes after every digit.
        self._length, self._rest = _NAMED_BY[by] if by else (0, "")
        self.sums: dict[tuple[str, str], Sum] = {}
        """By the beginning of the period, in UTC, and by tenant. Without periods the beginning is empty."""

    def add(self, value: bytes) -> None:
        """Add a record, which may have the id of its schema before it.

        Raises:
            ValueError, LookupError, TypeError: it is not a record of the usage topic.
        """
        record = orjson.loads(split(value)[1])
        tenant, minute = record["tenant_id"], record["minute"]
        added = record["events"], record["cache_hits"], record["tokens"], record["engine_ms"]
        if not self._since <= minute < self._until or (self._tenants and tenant not in self._tenants):
            return
        period = minute[: self._length] + self._rest
        total = self.sums.setdefault((period, tenant), Sum())
        total.events += added[0]
        total.cache_hits += added[1]
        total.tokens += added[2]
        total.engine_ms += added[3]


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _written(tenant_id: str, minute: int, total: Sum) -> bytes:
    return compact(
        {
            "schema_version": SCHEMA_VERSION,
            "tenant_id": tenant_id,
            "minute": _utc(minute * 60),
            "events": total.events,
            "cache_hits": total.cache_hits,
            "tokens": total.tokens,
            "engine_ms": round(total.engine_ms, 3),
        }
    )
