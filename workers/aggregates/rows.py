"""The rows of the table: what is known of one author, tenant, thread or content. Pure.

A row knows which verdicts it has counted, so a verdict that is read again changes nothing.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import msgspec
import orjson
from msgspec import Struct

from workers.aggregates.verdicts import Seen
from workers.aggregates.windows import HOUR_MS, HOURS, MINUTE_MS, MINUTES, Buckets, add, changes_of, expire, is_harmful
from workers.policy.strikes import Contribution

Kind: TypeAlias = Literal["author", "tenant", "thread", "content"]

MAX_KNOWN = 64
"""Verdicts of a row that are known by their ids. It matters only for verdicts that are written twice, at two positions:
a verdict that is read twice is known by its position."""

MAX_EVIDENCE = 20


class Key(NamedTuple):
    """Names a row. `subject` is the author, the thread or the part of a SimHash; of a tenant it is empty."""

    kind: Kind
    tenant_id: str
    subject: str

    def encoded(self) -> bytes:
        """Return the key in the changelog topic: a JSON array."""
        return orjson.dumps((self.kind, self.tenant_id, self.subject))


def key_of(encoded: bytes) -> Key:
    """Return the key that these bytes encode."""
    return Key(*orjson.loads(encoded))


class Raised(NamedTuple):
    """A threshold that is in force, since when, and the crossing that raised it."""

    crossing_id: str
    at_ms: int
    threshold: float


class Normal(NamedTuple):
    """What is normal for a tenant: fading sums of its harmful and of all its verdicts, up to a minute."""

    harmful: float
    verdicts: float
    minute: int


class Sent(NamedTuple):
    """A content that an author sent. `author` is a hash of the author's id."""

    similarity: int
    author: bytes
    verdict_id: str
    at_ms: int


class Row(Struct, omit_defaults=True, gc=False):
    """One row.

    Attributes:
        topic: which verdict topic `positions` are of. A topic that was made again begins at offset 0 again.
        positions: for each partition of the verdict topic the offset of the last verdict that was counted here.
            Verdicts of a partition arrive in order, so each one up to this offset was counted.
        known: the beginnings of the ids of the last `MAX_KNOWN` verdicts.
        newest_ms: the time of the newest verdict.
        evidence: the ids of the newest harmful verdicts, the newest first.
        strikes: what the author's verdicts add to the strikes.
        raised: the thresholds that are in force, by name.
        crossings: how often a threshold was raised.
        normal: of a tenant.
        sent: of a content, the oldest first.
    """

    topic: int = msgspec.field(default=0, name="t")
    positions: dict[int, int] = msgspec.field(default_factory=dict, name="p")
    known: list[bytes] = msgspec.field(default_factory=list, name="k")
    newest_ms: int = msgspec.field(default=0, name="n")
    minutes: Buckets = msgspec.field(default_factory=dict, name="m")
    hours: Buckets = msgspec.field(default_factory=dict, name="h")
    evidence: list[str] = msgspec.field(default_factory=list, name="e")
    strikes: list[Contribution] = msgspec.field(default_factory=list, name="s")
    raised: dict[str, Raised] = msgspec.field(default_factory=dict, name="r")
    crossings: int = msgspec.field(default=0, name="c")
    normal: Normal | None = msgspec.field(default=None, name="b")
    sent: list[Sent] = msgspec.field(default_factory=list, name="x")

    def takes(self, seen: Seen, topic: int) -> bool:
        """Note a verdict as counted; False if it was counted before."""
        if topic != self.topic:
            self.topic, self.positions = topic, {}
        if seen.offset <= self.positions.get(seen.partition, -1):
            return False
        self.positions[seen.partition] = seen.offset
        beginning = bytes.fromhex(seen.verdict_id[:16])
        if beginning in self.known:
            return False
        self.known.append(beginning)
        if len(self.known) > MAX_KNOWN:
            del self.known[0]
        return True

    def count(self, seen: Seen, now_ms: int) -> int:
        """Count a verdict in the minute and the hour in which its event was received; return its time.

        A time in the future becomes `now_ms`: the clocks of two workers may differ.
        """
        at_ms = min(seen.received_ms, now_ms)
        self.newest_ms = max(self.newest_ms, at_ms)
        changes = changes_of(seen, superseded_is_harmful=seen.supersedes in self.evidence)
        first_minute, first_hour = self.newest_ms // MINUTE_MS - MINUTES + 1, self.newest_ms // HOUR_MS - HOURS + 1
        if at_ms // MINUTE_MS >= first_minute:
            add(self.minutes, at_ms // MINUTE_MS, changes)
        if at_ms // HOUR_MS >= first_hour:
            add(self.hours, at_ms // HOUR_MS, changes)
        expire(self.minutes, first_minute)
        expire(self.hours, first_hour)
        if seen.supersedes in self.evidence:
            self.evidence.remove(seen.supersedes)
        if is_harmful(seen):
            self.evidence.insert(0, seen.verdict_id)
            del self.evidence[MAX_EVIDENCE:]
        return at_ms


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Row)


def encode(row: Row) -> bytes:
    """Return a row as the table and its changelog topic hold it."""
    return _encoder.encode(row)


def decode(value: bytes) -> Row:
    """Return the row that these bytes encode.

    Raises:
        msgspec.DecodeError: they encode none.
    """
    return _decoder.decode(value)
