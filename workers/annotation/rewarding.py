"""`guardline reward`: each row is a prompt and a completion, and gets its reward."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from workers.annotation.file_work import Assessor, FileWork, Progress, Summary, bad_finding
from workers.annotation.files import Writer, kind_of
from workers.annotation.findings import Finding
from workers.annotation.rows import Row
from workers.core.reasons import Reason
from workers.errors import Misconfigured, OneAtFault, Undecodable
from workers.reward.equations import Equation
from workers.reward.exchange import Exchange, read_exchange
from workers.reward.rewards import Rewarded, rewards
from workers.settings import Batch


class Rewarding(FileWork[Exchange]):
    """The rewards of one file. Each row is in the output, those that cannot be judged with the reward null."""

    def __init__(self, source: Path, output: Path, equation: Equation, score_field: str | None = None) -> None:
        """Check the names.

        Raises:
            Misconfigured: see `FileWork`; the files are not JSON lines; the mode hybrid has no score, or another has.
        """
        if (equation.mode == "hybrid") != (score_field is not None):
            raise Misconfigured("--mode hybrid needs --score-field, and --mode guard takes none")
        if kind_of(source) != "JSON lines":
            raise Misconfigured(f"{source}: rewards need JSON lines, because prompts can be lists of messages")
        super().__init__(source, output, f"reward {equation.mode} {equation.controversial} {score_field}")
        self.bad_rows_in = output
        self._equation = equation
        self._score_field = score_field
        self._batch = Batch()

    async def run(self, guard: Assessor, batch: Batch, retry_s: float, progress: Progress) -> Summary:
        """Judge the rows that are not judged yet, and write the output.

        Guarantee and errors: see `FileWork`.
        """
        self._batch = batch
        return await self._run(guard, batch, retry_s, progress)

    def _item(self, row: Row) -> Exchange:
        if row.problem is not None:
            raise row.problem
        found = row.fields or {}
        needed = ("prompt", "completion", *([self._score_field] if self._score_field else []))
        if missing := [name for name in needed if found.get(name) is None]:
            raise Undecodable(Reason.MISSING_FIELD, f"{missing[0]}: the field is required")
        score = None
        if self._score_field:
            score = found[self._score_field]
            if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
                raise Undecodable(Reason.WRONG_TYPE, f"{self._score_field}: must be a number")
        return read_exchange(found["prompt"], found["completion"], score)

    def _chars(self, item: Exchange) -> int:
        return len(item.thought) + len(item.answer) + sum(len(text) for _, text in item.context)

    async def _find(self, guard: Assessor, items: Sequence[Exchange | OneAtFault], retry_s: float) -> list[Finding]:
        found = await rewards(guard, items, self._equation, self._batch, retry_s)
        return [
            asdict(each) if each.problem is None else asdict(each) | bad_finding(Undecodable("no_reward", each.problem))
            for each in found
        ]

    def _write_row(self, writer: Writer, number: int, row: Row, finding: Finding) -> bool:
        shown = {field.name: finding.get(field.name) for field in fields(Rewarded)}
        if "bad" in finding:
            shown["problem"] = f"row {number}: {finding['bad']['detail']}"
        if row.fields is None:
            row = row._replace(native={"value": row.raw()})
        writer.write(row, shown)
        return True
