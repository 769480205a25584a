"""Judges every row of a file and writes the rows with what was found to a new file.

It works in two passes. The first pass judges the rows and notes one finding for each (`findings.py`). The second pass
joins rows and findings into the output and renames the output into its place when it is complete. So a kill at any
moment costs only the rows at the engine, and an output that exists is complete.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

import orjson

from workers.annotation.files import Writer, kind_of, open_source, open_writer
from workers.annotation.findings import Finding, Findings
from workers.annotation.rows import PLAIN, Reading, Row
from workers.core.batcher import estimate_tokens
from workers.errors import Misconfigured, OneAtFault, Unavailable, Undecodable
from workers.guard.guard import Refused, Request
from workers.settings import Batch

CRASHES_ALONE = 2
"""How many runs may crash with one row alone at the engine before that row is not judged again. One of the crashes may
be a `kill -9` by chance."""

Item = TypeVar("Item")
"""What is judged: the event or the exchange that a row holds."""

Progress = Callable[[int, int], None]
"""Gets how many rows are done, and the position after the last of them."""


class Assessor(Protocol):
    """What the work on a file needs of a guard."""

    fingerprint: str

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> Sequence[Finding | Refused]:
        """Judge each request, with retries until the deadline (of `time.monotonic`) at most."""
        ...


class Summary(NamedTuple):
    """How many rows the input has, how many of them cannot be judged (`bad`), and how many this run judged."""

    rows: int
    bad: int
    judged: int


class FileWork(ABC, Generic[Item]):
    """One input, its output, and the two files beside the output.

    Attributes:
        partial: the findings so far; the file exists only while the work is not finished.
        bad: the rows that cannot be judged, one JSON object a line; the file exists only if there is such a row.
        bad_rows_in: the file that names the rows that cannot be judged.
        is_done: an earlier run finished the work and was killed before it could remove `partial`.
    """

    _has_decision = False

    def __init__(self, source: Path, output: Path, name: str, reading: Reading = PLAIN) -> None:
        """Check the names of the files. `name` tells one way of reading and judging the input from another.

        Raises:
            Misconfigured: the names do not go together, the input cannot be read, or the output exists already.
        """
        self._path = source
        self.output = output
        self.partial = output.with_name(output.name + ".partial")
        self.bad = output.with_name(output.name + ".bad.jsonl")
        if source.exists() and output.exists() and source.samefile(output):
            raise Misconfigured(f"IN and OUT are the same file, {source}: choose another name for OUT")
        if kind_of(source) != kind_of(output):
            raise Misconfigured(f"{output}: must be {kind_of(source)}, as {source} is")
        if not output.parent.is_dir():
            raise Misconfigured(f"{output}: no such folder: {output.parent}")
        self.bad_rows_in = self.bad
        # The earlier run was killed between its last two steps: the output is in its place, and `partial` still exists.
        self.is_done = output.exists() and self.partial.exists()
        if self.is_done:
            self.partial.unlink()
        elif output.exists():
            raise Misconfigured(f"{output} exists already: remove it, or choose another name")
        self.source = open_source(source, reading)
        self._name = name

    async def _run(self, guard: Assessor, batch: Batch, retry_s: float, progress: Progress) -> Summary:
        """Judge the rows that are not judged yet, and write the output.

        Guarantee: when it returns, each row of the input is in the output or among the bad rows, once, in the order of
        the input. Memory does not grow with the file: at most `batch.in_flight` micro-batches are in flight.

        Raises:
            Misconfigured: the input cannot be read to its end, or `partial` belongs to another input, model or reading.
            Unavailable: the engine gave no answer for `retry_s`. The next run continues.
            Fatal: the engine cannot recover.
        """
        about = {"input": _identity(self._path), "judged_by": guard.fingerprint, "read_by": self._name}
        findings = Findings(self.partial, about)
        is_done = False
        try:
            try:
                await self._judge(guard, findings, batch, retry_s, progress)
            except (asyncio.CancelledError, Misconfigured):
                findings.note_end()
                raise
            except Unavailable as error:
                findings.note_end()
                raise Unavailable(
                    f"no answer from the engine for {retry_s:g} s: {error}. Run the same command to continue"
                ) from error
            bad = self._write(findings)
            is_done = True
            return Summary(findings.count, bad, findings.judged)
        finally:
            # A file without a result would only keep the next run from reading an input that was mended.
            findings.close(is_done=is_done or findings.is_empty)

    async def _judge(
        self, guard: Assessor, findings: Findings, batch: Batch, retry_s: float, progress: Progress
    ) -> None:
        rows = self.source.rows(are_whole=False)
        for row in islice(rows, findings.count):
            position = row.position
        if findings.count:
            progress(findings.count, position)
        for row in islice(rows, findings.suspects):
            findings.append([await self._find_alone(guard, findings, row, retry_s)])
            progress(findings.count, row.position)
        in_flight_tasks: deque[tuple[asyncio.Task[list[Finding]], int]] = deque()

        async def settle() -> None:
            task, position = in_flight_tasks.popleft()
            findings.append(await task)
            progress(findings.count, position)

        try:
            for chunk in self._chunks(rows, batch):
                if len(in_flight_tasks) >= batch.in_flight:
                    await settle()
                items = [item for item, _ in chunk]
                findings.note_sent(len(items))
                in_flight_tasks.append((asyncio.create_task(self._find(guard, items, retry_s)), chunk[-1][1]))
            while in_flight_tasks:
                await settle()
        finally:
            for task, _ in in_flight_tasks:
                task.cancel()

    def _write(self, findings: Findings) -> int:
        """Join rows and findings; give the number of bad rows. Only the last step can be seen from outside."""
        output, side = (path.with_name(path.name + ".writing") for path in (self.output, self.bad))
        writer = open_writer(output, self.output.name, self.source, has_decision=self._has_decision)
        count = bad = 0
        with side.open("wb") as bad_rows:
            # Each row has a finding, because `_judge` read the same rows to the end.
            joined = zip(self.source.rows(are_whole=True), findings, strict=True)
            for number, (row, finding) in enumerate(joined, 1):
                count += "bad" in finding
                if not self._write_row(writer, number, row, finding):
                    bad += 1
                    line = {"row": number, **finding["bad"], "value": row.raw()}
                    bad_rows.write(orjson.dumps(line, default=str, option=orjson.OPT_APPEND_NEWLINE))
        writer.close()
        if bad:
            _put(side, self.bad)
        else:
            side.unlink()
            self.bad.unlink(missing_ok=True)
        _put(output, self.output)
        return count

    def _chunks(self, rows: Iterator[Row], batch: Batch) -> Iterator[list[tuple[Item | OneAtFault, int]]]:
        """Cut rows into micro-batches: for each row its item or its error, and the position after it."""
        chunk: list[tuple[Item | OneAtFault, int]] = []
        tokens = 0
        for row in rows:
            item = self._item_or_problem(row)
            if not isinstance(item, OneAtFault):
                tokens += estimate_tokens(self._chars(item))
            chunk.append((item, row.position))
            if len(chunk) >= batch.max_count or tokens >= batch.max_tokens:
                yield chunk
                chunk, tokens = [], 0
        if chunk:
            yield chunk

    def _item_or_problem(self, row: Row) -> Item | OneAtFault:
        try:
            return self._item(row)
        except OneAtFault as error:
            return error

    async def _find_alone(self, guard: Assessor, findings: Findings, row: Row, retry_s: float) -> Finding:
        """Judge the row after the findings with nothing else at the engine: if the process dies, this row did it."""
        if findings.crashes >= CRASHES_ALONE:
            return bad_finding(
                Undecodable("engine_died", f"{findings.crashes} runs crashed while they judged this row alone")
            )
        findings.note_alone()
        (finding,) = await self._find(guard, [self._item_or_problem(row)], retry_s)
        return finding

    @abstractmethod
    def _item(self, row: Row) -> Item:
        """Read what is judged of a row.

        Raises:
            OneAtFault: the row does not hold it.
        """

    @abstractmethod
    def _chars(self, item: Item) -> int:
        """Give the size of what is judged."""

    @abstractmethod
    async def _find(self, guard: Assessor, items: Sequence[Item | OneAtFault], retry_s: float) -> list[Finding]:
        """Judge items, with retries for so many seconds. The finding of one that cannot be judged has the key `bad`.

        Raises:
            Unavailable: the engine gave no answer. Fatal: it cannot recover.
        """

    @abstractmethod
    def _write_row(self, writer: Writer, number: int, row: Row, finding: Finding) -> bool:
        """Write a row with its finding. False: the row belongs into the file of bad rows."""


def bad_finding(problem: Refused | OneAtFault) -> Finding:
    """Give the finding of a row that cannot be judged."""
    return {"bad": {"reason": problem.reason, "detail": problem.detail}}


def _identity(path: Path) -> dict[str, str | int]:
    """Identify an input by its size, its beginning and its end, without reading all of it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(1 << 20))
        file.seek(max(0, size - (1 << 20)))
        digest.update(file.read())
    return {"bytes": size, "sha256_of_ends": digest.hexdigest()}


def _put(written: Path, place: Path) -> None:
    """Rename a file into its place, and sync both to the disk."""
    for path in (written, written.parent):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if path is written:
            written.replace(place)
