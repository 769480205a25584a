"""The findings so far, one line for each row in the order of the rows: they survive a kill.

The output is made from this file at the end. Between the findings are notes about which rows were sent to the engine,
so that a row that crashes the process can be found (docs/decisions/0003 describes the same for workers).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from workers.errors import Fatal, Misconfigured

Finding = dict[str, Any]

AT_ENGINE = "at_engine"
"""A line with this name is a note, not a finding."""


class Findings:
    """An append-only file: the first line says whose findings these are; then there is one line for each row.

    Guarantee: a finding survives any crash after `append` has returned, also of the machine; a note survives a crash
    of the process. A line that was written in part is cut off when the file is opened again. Only one process can have
    the file open.

    Attributes:
        count: the rows that have a finding.
        judged: the rows for which this run appended a finding, without the bad rows.
        suspects: the rows after them that were at the engine when an earlier run crashed.
        crashes: how often a run crashed with only the row after `count` at the engine.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        """Open the file, or create it.

        Raises:
            Misconfigured: another process has it open, or it is about another input or model.
        """
        self._path = path
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise Misconfigured(f"{path}: another process has it open") from None
        header = orjson.dumps(dict(about), option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
        self.count = self._sent = self.crashes = self.judged = 0
        self._recover(header)
        self._suspected_to = self._sent = max(self._sent, self.count)
        self.suspects = self._sent - self.count

    def _recover(self, header: bytes) -> None:
        """Cut off a line that a crash left half-written, and count the rest."""
        self._file.seek(0)
        first = self._file.readline()
        if not first.endswith(b"\n") or (first != header and self._holds_no_result(first, header)):
            self._file.truncate(0)
            self._file.write(header)
            self._sync()
            return
        if first != header:
            self._file.close()
            raise Misconfigured(
                f"{self._path} holds the results of another input, or by another model or settings: "
                "remove it to begin again, or continue with what it was begun with"
            )
        end = len(first)
        for line in self._file:
            found = _parsed(line) if line.endswith(b"\n") else None
            if found is None:
                break
            end += len(line)
            if AT_ENGINE not in found:
                self._found(1)
            elif found["is_alone"]:
                self.crashes += 1
            else:
                self._sent, self.crashes = found[AT_ENGINE], 0
        self._file.truncate(end)

    def _holds_no_result(self, first: bytes, header: bytes) -> bool:
        """Say whether an earlier run on another input left the file without a result."""
        known = _parsed(first)
        if not isinstance(known, dict) or known.keys() != orjson.loads(header).keys():
            return False
        whole = (_parsed(line) for line in self._file if line.endswith(b"\n"))
        return all(isinstance(found, dict) and AT_ENGINE in found for found in whole)

    def append(self, findings: Sequence[Finding]) -> None:
        """Write one line for each finding, and sync the file to the disk."""
        self._file.write(b"".join(orjson.dumps(finding, option=orjson.OPT_APPEND_NEWLINE) for finding in findings))
        self._sync()
        self._found(len(findings))
        self.judged += sum("bad" not in finding for finding in findings)

    def _found(self, rows: int) -> None:
        self.count += rows
        self.crashes = 0

    def note_sent(self, rows: int) -> None:
        """Note that this many more rows go to the engine."""
        self._sent += rows
        self._note(is_alone=False)

    def note_alone(self) -> None:
        """Note that the row after `count` goes to the engine, and that no other row is there."""
        self._note(is_alone=True)

    def note_end(self) -> None:
        """Withdraw the notes of this run, because it ends in order. Suspects that it did not reach remain suspects."""
        self._sent = max(self.count, self._suspected_to)
        self._note(is_alone=False)

    def _note(self, *, is_alone: bool) -> None:
        self._file.write(orjson.dumps({AT_ENGINE: self._sent, "is_alone": is_alone}, option=orjson.OPT_APPEND_NEWLINE))
        self._file.flush()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    @property
    def is_empty(self) -> bool:
        """Whether the file holds neither a finding nor a suspect."""
        return not self.count and not self._sent

    def __iter__(self) -> Iterator[Finding]:
        with self._path.open("rb") as lines:
            lines.readline()
            for line in lines:
                found = _parsed(line)
                if found is None:
                    raise Fatal(f"{self._path} was changed by something else: remove it to begin again")
                if AT_ENGINE not in found:
                    yield found

    def close(self, *, is_done: bool) -> None:
        """Close the file, and remove it when it has served."""
        if is_done:
            self._path.unlink()
        self._file.close()


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return found
