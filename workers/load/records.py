"""Makes up the records of a load: events of several tenants and languages, duplicates, and invalid records. No I/O."""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate

from schemas.event import MAX_ID_CHARS
from workers.errors import Misconfigured
from workers.load.texts import TEXTS

RECENT = 1_000
"""A duplicate repeats one of the last events, as a producer does that retries."""

ROOMS = 50
"""Conversations of each tenant: their ids are the keys of the records."""

COMMENTS = 0.25
"""The fraction of the events that are comments."""

INVALID = (
    b"not JSON",
    b"\xff\xfe",
    b"[1, 2]",
    b'{"text": "an event without a tenant"}',
    b'{"tenant_id": "load", "event_id": "an event without a text"}',
)
"""Values that become dead letters with any settings of `events`."""


@dataclass(frozen=True)
class Mix:
    """What a load consists of.

    `tenants` and `languages` are weights; `duplicates` and `invalid` are fractions of all records. The same `seed`
    gives the same records, except for their ids and for the numbers in their texts: otherwise the deduplication would
    recognise a load that was sent before.

    Raises:
        Misconfigured: a weight, a fraction or a language that cannot be used; the sentence names its flag.
    """

    tenants: Mapping[str, float] = field(default_factory=lambda: {"load": 1.0})
    languages: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(TEXTS, 1.0))
    duplicates: float = 0.0
    invalid: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        unknown = sorted(self.languages.keys() - TEXTS.keys())
        if unknown:
            raise Misconfigured(f"--language: no texts in {', '.join(unknown)} (one of: {', '.join(TEXTS)})")
        for flag, weights in (("--tenant", self.tenants), ("--language", self.languages)):
            if not weights or min(weights.values()) < 0 or sum(weights.values()) <= 0:
                raise Misconfigured(f"{flag}: the weights must not be negative, and one of them must be above 0")
        if not all(1 <= len(name) <= MAX_ID_CHARS for name in self.tenants):
            raise Misconfigured(f"--tenant: a name must have 1 to {MAX_ID_CHARS} characters")
        if min(self.duplicates, self.invalid) < 0 or self.duplicates + self.invalid > 1:
            raise Misconfigured("--duplicates and --invalid: each is a fraction, and together they are at most 1")


@dataclass(frozen=True, slots=True)
class Made:
    """One record to send. `surface` and `key` say where; an invalid record has no key."""

    surface: str
    key: bytes | None
    value: bytes
    tenant: str | None
    is_duplicate: bool = False


class Records:
    """Makes the records of one load. `run` is in each event id, and tells the events of this load from all others."""

    def __init__(self, mix: Mix, run: str) -> None:
        self._mix = mix
        self._prefix = f"load-{run}-"
        self._first = int(run, 16) % 1_000_000 * 1_000
        self._chance = random.Random(mix.seed)  # noqa: S311 - a load, not a secret
        self._recent = deque[Made](maxlen=RECENT)
        self._made = 0

    def has_made(self, event_id: object) -> bool:
        """Whether an event id is one of this load."""
        return isinstance(event_id, str) and event_id.startswith(self._prefix)

    def next(self, now_s: float) -> Made:
        """Return one more record. `now_s`, a Unix time, becomes the `created_at` of an event."""
        chance = self._chance
        kind = chance.random()
        self._made += 1
        if kind < self._mix.invalid:
            return Made("chat", None, INVALID[self._made % len(INVALID)], None)
        if kind < self._mix.invalid + self._mix.duplicates and self._recent:
            return chance.choice(self._recent)
        event = self._event(now_s)
        self._recent.append(Made(event.surface, event.key, event.value, event.tenant, is_duplicate=True))
        return event

    def _event(self, now_s: float) -> Made:
        chance = self._chance
        tenant, language = _chosen(chance, self._mix.tenants), _chosen(chance, self._mix.languages)
        surface = "comment" if chance.random() < COMMENTS else "chat"
        room = f"{tenant}-{chance.randrange(ROOMS)}"
        event = {
            "event_id": f"{self._prefix}{self._made}",
            "tenant_id": tenant,
            "surface": surface,
            "author_id": f"author-{chance.randrange(1_000)}",
            "language": language,
            "text": chance.choice(TEXTS[language]).format(n=self._first + self._made),
            "created_at": datetime.fromtimestamp(now_s, UTC).isoformat(timespec="milliseconds"),
            "attributes": {"conversation_id": room},
        }
        return Made(surface, room.encode(), json.dumps(event, ensure_ascii=False).encode(), tenant)


def _chosen(chance: random.Random, weights: Mapping[str, float]) -> str:
    return chance.choices(list(weights), cum_weights=list(accumulate(weights.values())))[0]
