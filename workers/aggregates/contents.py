"""The same content, or nearly the same, from many authors: found by SimHash. Pure.

Two hashes that differ in at most three bits are equal in at least one of their four bands of 16 bits. So each verdict
goes to four rows, one for each band, and each row compares only the contents of its band.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from workers.aggregates.rows import MAX_EVIDENCE, Key, Row, Sent
from workers.aggregates.signals import Crossing, crossed
from workers.aggregates.verdicts import Seen
from workers.aggregates.windows import MINUTE_MS
from workers.settings.aggregate_sections import SimilarContent

BANDS = 4
_BAND_BITS = 16
_MASK = (1 << _BAND_BITS) - 1

MAX_SENT = 128
"""The newest contents of a row."""

MAX_FIRSTS = 200_000
"""Contents that came once. They are in memory only: nearly all contents come once, and need no row."""


def subjects(similarity: int) -> list[str]:
    """Return the subjects of the rows to which a content belongs: the number of the band, and its bits."""
    return [f"{band}{(similarity >> (band * _BAND_BITS)) & _MASK:04x}" for band in range(BANDS)]


def sent_of(seen: Seen, now_ms: int) -> Sent | None:
    """Return what the row of a content holds of a verdict. None: the verdict names no author, or has no SimHash."""
    if seen.similarity is None or seen.author_id is None or seen.supersedes is not None:
        return None
    author = blake2b(seen.author_id.encode(), digest_size=8).digest()
    return Sent(seen.similarity, author, seen.verdict_id, min(seen.received_ms, now_ms))


class Firsts:
    """The contents that came once, the oldest first."""

    def __init__(self) -> None:
        self._sent: OrderedDict[bytes, Sent] = OrderedDict()

    def swap(self, key: bytes, sent: Sent) -> Sent | None:
        """Remember a content in the place of the one that came before to this row; return the latter."""
        before = self._sent.pop(key, None)
        self._sent[key] = sent
        if len(self._sent) > MAX_FIRSTS:
            self._sent.popitem(last=False)
        return before

    def forget(self, key: bytes) -> None:
        """The content has a row now."""
        self._sent.pop(key, None)


def is_near(one: int, other: int, max_distance: int) -> bool:
    """Whether two hashes differ in at most `max_distance` bits."""
    return (one ^ other).bit_count() <= max_distance


def _is_counted_in(band: int, one: int, other: int) -> bool:
    """Whether two hashes are equal in this band and in none before it: a pair counts in one row only."""
    difference = one ^ other
    return all((difference >> (before * _BAND_BITS)) & _MASK for before in range(band)) and not (
        (difference >> (band * _BAND_BITS)) & _MASK
    )


def content_signals(key: Key, row: Row, sent: Sent, settings: SimilarContent) -> list[Crossing]:
    """Add a content to its row; return the signal, if enough different authors have sent nearly the same."""
    band = int(key.subject[0])
    _expire(row, settings, sent.at_ms)
    row.sent = [one for one in row.sent if (one.author, one.similarity) != (sent.author, sent.similarity)]
    row.sent.append(sent)
    del row.sent[:-MAX_SENT]
    near = [
        one
        for one in row.sent
        if one is sent
        or (
            is_near(one.similarity, sent.similarity, settings.max_distance)
            and _is_counted_in(band, one.similarity, sent.similarity)
        )
    ]
    authors = len({one.author for one in near})
    is_raised = any(is_near(int(name, 16), sent.similarity, 2 * settings.max_distance) for name in row.raised)
    if authors < settings.authors or is_raised:
        return []
    name = f"{near[0].similarity:016x}"
    evidence = [one.verdict_id for one in reversed(near)][:MAX_EVIDENCE]
    return [
        crossed(
            key,
            row,
            name,
            is_raised=True,
            value=authors,
            threshold=settings.authors,
            evidence=evidence,
            at_ms=sent.at_ms,
            subject=name,
        )
    ]


def cleared(key: Key, row: Row, settings: SimilarContent, now_ms: int) -> list[Crossing]:
    """Return the signals of contents that fewer authors send now."""
    _expire(row, settings, now_ms)
    found = []
    for name in sorted(row.raised):
        near = [one for one in row.sent if is_near(one.similarity, int(name, 16), settings.max_distance)]
        authors = len({one.author for one in near})
        if authors < settings.clear_below:
            found.append(
                crossed(
                    key,
                    row,
                    name,
                    is_raised=False,
                    value=authors,
                    threshold=settings.clear_below,
                    evidence=[one.verdict_id for one in reversed(near)][:MAX_EVIDENCE],
                    at_ms=now_ms,
                    subject=name,
                )
            )
    return found


def _expire(row: Row, settings: SimilarContent, now_ms: int) -> None:
    begin_ms = now_ms - settings.window_minutes * MINUTE_MS
    row.sent = [one for one in row.sent if one.at_ms > begin_ms]
