"""Counts the verdicts of one record into their rows, and finds the thresholds that are crossed. No I/O, no clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from workers.aggregates import contents, harm, strikes
from workers.aggregates.rows import Key, Row, decode, encode, key_of
from workers.aggregates.signals import Crossing
from workers.aggregates.updates import Forget, Tick, Verdicts
from workers.aggregates.verdicts import Seen, is_time
from workers.aggregates.windows import HOUR_MS, MINUTE_MS
from workers.core.forgotten import Forgotten
from workers.policy.strikes import CompiledStrikes, Standing
from workers.settings.aggregate_sections import Aggregates

TENANT_IDLE_MS = 30 * 24 * HOUR_MS
"""How long the row of a quiet tenant is kept: what is normal for it takes long to learn."""


class Rows(Protocol):
    """The rows of the partitions that this worker owns."""

    def get(self, key: bytes) -> bytes | None:
        """Return a row, None if there is none."""

    @property
    def are_full(self) -> bool:
        """Whether there are as many rows as the settings allow."""


class Strikes(NamedTuple):
    """An author's strikes, for Redis. None: the author has none."""

    tenant_id: str
    author_id: str
    standing: Standing | None


class Counted(NamedTuple):
    """What became of one record.

    `rows`: the rows that changed, None for one to delete. `counted`, `repeats` and `refused` are verdicts by row:
    counted, counted before, and of rows for which there is no room.
    """

    rows: dict[bytes, bytes | None]
    signals: list[Crossing]
    strikes: list[Strikes]
    counted: int = 0
    repeats: int = 0
    refused: int = 0


class Counter:
    """Counts for the rows of this worker. Keeps in memory which rows have a threshold in force."""

    def __init__(
        self, settings: Aggregates, rules_of: Callable[[str], CompiledStrikes | None], forgotten: Forgotten
    ) -> None:
        self._settings = settings
        self._rules_of = rules_of
        self._forgotten = forgotten
        self._firsts = contents.Firsts()
        self._raised: defaultdict[int, set[bytes]] = defaultdict(set)
        self._due: defaultdict[int, set[bytes]] = defaultdict(set)

    def verdicts(self, update: Verdicts, rows: Rows, partition: int, now_ms: int) -> Counted:
        """Count the verdicts of a record. `partition` is that of the rows, `now_ms` the time of a clock."""
        changed: dict[bytes, bytes | None] = {}
        signals: list[Crossing] = []
        struck: list[Strikes] = []
        counted = repeats = refused = 0
        for name, group in update.groups:
            key = key_of(name)
            if key.kind == "author" and len(self._forgotten):
                # Such as verdicts that were written while the worker was down, and are read after the request.
                group = [seen for seen in group if not self._covers(key, seen)]
                if not group:
                    continue
            stored = changed[name] if name in changed else rows.get(name)
            if stored is None and key.kind != "tenant" and rows.are_full:
                refused += len(group)
                continue
            row = Row() if stored is None else decode(stored)
            fresh = [seen for seen in group if row.takes(seen, update.topic)]
            counted += len(fresh)
            repeats += len(group) - len(fresh)
            if fresh:
                match key.kind:
                    case "author":
                        found, standing = self._author(key, row, fresh, now_ms)
                        struck += standing
                    case "content":
                        is_new = stored is None
                        found, is_kept = self._content(key, name, row, fresh, now_ms, is_new=is_new)
                        if not is_kept:
                            continue
                    case _:
                        found = self._others(key, row, fresh, now_ms)
                signals += found
            elif stored is None:
                continue
            # A row of repeats is written too: its last change may have missed the changelog when the worker was killed.
            changed[name] = encode(row)
            self._note(partition, name, row)
        return Counted(changed, signals, struck, counted, repeats, refused)

    def tick(self, update: Tick, rows: Rows, partition: int, now_ms: int) -> Counted:
        """Clear thresholds that time has cleared, and delete rows that are due.

        A tick in the future counts as `now_ms`, the time of a clock: the clock of another worker may be ahead.
        """
        if not is_time(update.now_ms):
            return Counted({}, [], [])
        now_ms = min(update.now_ms, now_ms)
        changed: dict[bytes, bytes | None] = {}
        signals: list[Crossing] = []
        names = {*self._raised[partition], *self._due.pop(partition, ())}
        for name in names:
            stored = rows.get(name)
            if stored is None:
                self._raised[partition].discard(name)
                continue
            key, row = key_of(name), decode(stored)
            if self._is_forgotten(key, row):
                changed[name] = None
                self._raised[partition].discard(name)
                continue
            found = self._passed(key, row, now_ms)
            signals += found
            if self.is_idle(key, row, now_ms):
                changed[name] = None
            elif found:
                changed[name] = encode(row)
            self._note(partition, name, row)
        return Counted(changed, signals, [])

    def forget(self, update: Forget, partition: int) -> Counted:
        """Delete the row of an author, and the author's strikes. A threshold in force ends without a signal."""
        key = key_of(update.key)
        self._forgotten.note(key.tenant_id, key.subject, update.until_ms)
        self._raised[partition].discard(update.key)
        return Counted({update.key: None}, [], [Strikes(key.tenant_id, key.subject, None)])

    def _covers(self, key: Key, seen: Seen) -> bool:
        return self._forgotten.covers(key.tenant_id, key.subject, seen.sent_ms, seen.received_ms)

    def _is_forgotten(self, key: Key, row: Row) -> bool:
        """Whether a request covers all verdicts of a row.

        Such a row is read from a folder that is older than the request, or was written by a worker that did not know
        the request.
        """
        return key.kind == "author" and self._forgotten.covers(key.tenant_id, key.subject, None, row.newest_ms)

    def look(self, name: bytes, stored: bytes, partition: int, now_ms: int) -> Strikes | None:
        """Note what has to be done with a row later; return the author's strikes, to be written to Redis again."""
        key, row = key_of(name), decode(stored)
        if self._is_forgotten(key, row):
            self._due[partition].add(name)
            return Strikes(key.tenant_id, key.subject, None)
        self._note(partition, name, row)
        if self.is_idle(key, row, now_ms):
            self._due[partition].add(name)
        return self._standing(key, row, self._rules_of(key.tenant_id), now_ms) if row.strikes else None

    def begin(self, partitions: Iterable[int]) -> None:
        """Forget what is noted of rows of other partitions: they belong to other workers now."""
        kept = set(partitions)
        for noted in (self._raised, self._due):
            for partition in noted.keys() - kept:
                del noted[partition]

    @property
    def in_force(self) -> int:
        """The number of rows with a threshold in force."""
        return sum(map(len, self._raised.values()))

    def is_idle(self, key: Key, row: Row, now_ms: int) -> bool:
        """Whether a row may be deleted: nothing of it counts any more."""
        if row.raised:
            return False
        if key.kind == "content":
            return now_ms - row.newest_ms > self._settings.similar.window_minutes * MINUTE_MS
        if key.kind == "tenant":
            return now_ms - row.newest_ms > TENANT_IDLE_MS
        if now_ms - row.newest_ms <= self._settings.idle_hours * HOUR_MS:
            return False
        rules = self._rules_of(key.tenant_id) if row.strikes else None
        return rules is None or not rules.value(row.strikes, now_ms)

    def _note(self, partition: int, name: bytes, row: Row) -> None:
        if row.raised:
            self._raised[partition].add(name)
        else:
            self._raised[partition].discard(name)

    def _author(self, key: Key, row: Row, group: list[Seen], now_ms: int) -> tuple[list[Crossing], list[Strikes]]:
        rules = self._rules_of(key.tenant_id)
        signals: list[Crossing] = []
        has_changed = False
        for seen in group:
            at_ms = row.count(seen, now_ms)
            if rules is not None and strikes.add(row, rules, seen, now_ms):
                has_changed = True
                signals += strikes.author_signals(key, row, rules, max(at_ms, row.newest_ms))
        if rules is None and row.raised:
            signals += strikes.author_signals(key, row, None, row.newest_ms)
        return signals, [self._standing(key, row, rules, now_ms)] if has_changed else []

    def _standing(self, key: Key, row: Row, rules: CompiledStrikes | None, now_ms: int) -> Strikes:
        standing = None if rules is None else rules.standing(row.strikes, now_ms)
        return Strikes(key.tenant_id, key.subject, standing if standing is not None and standing.steps else None)

    def _others(self, key: Key, row: Row, group: list[Seen], now_ms: int) -> list[Crossing]:
        for seen in group:
            row.count(seen, now_ms)
        return self._passed(key, row, row.newest_ms)

    def _content(
        self, key: Key, name: bytes, row: Row, group: list[Seen], now_ms: int, *, is_new: bool
    ) -> tuple[list[Crossing], bool]:
        """Add contents to their row; also say whether the row is to be kept. A content that came once needs none."""
        settings = self._settings.similar
        signals: list[Crossing] = []
        for seen in group:
            sent = contents.sent_of(seen, now_ms)
            if sent is None:
                continue
            row.newest_ms = max(row.newest_ms, sent.at_ms)
            if is_new:
                before = self._firsts.swap(name, sent)
                if before is None or not contents.is_near(before.similarity, sent.similarity, settings.max_distance):
                    continue
                self._firsts.forget(name)
                is_new = False
                row.sent.append(before)
            signals += contents.content_signals(key, row, sent, settings)
        return signals, not is_new

    def _passed(self, key: Key, row: Row, now_ms: int) -> list[Crossing]:
        match key.kind:
            case "tenant":
                return harm.tenant_signals(key, row, self._settings.harm_rate, now_ms)
            case "thread":
                return harm.thread_signals(key, row, self._settings.thread, now_ms)
            case "content":
                return contents.cleared(key, row, self._settings.similar, now_ms)
        return strikes.author_signals(key, row, self._rules_of(key.tenant_id), now_ms)
