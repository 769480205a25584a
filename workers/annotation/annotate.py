"""`guardline annotate`: each row is an event, and gets its assessment and the decision of a policy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from schemas.event import EventDict
from workers.annotation.file_work import Assessor, FileWork, Progress, Summary, bad_finding
from workers.annotation.files import Writer
from workers.annotation.findings import Finding
from workers.annotation.rows import PLAIN, Reading, Row, request_of
from workers.errors import OneAtFault
from workers.guard.guard import Refused
from workers.guard.languages import Languages
from workers.guard.retries import ask_with_retries
from workers.policy.policy import CompiledPolicy
from workers.settings import Batch


class Annotation(FileWork[EventDict]):
    """The annotation of one file. Rows that cannot be judged go to the file `bad`."""

    def __init__(self, source: Path, output: Path, reading: Reading = PLAIN) -> None:
        """Check the names.

        Raises:
            Misconfigured: see `FileWork`.
        """
        super().__init__(source, output, reading.name, reading)
        self._reading = reading
        self._policy: CompiledPolicy | None = None
        self._languages: Languages | None = None

    async def run(
        self,
        guard: Assessor,
        batch: Batch,
        retry_s: float,
        policy: CompiledPolicy | None,
        progress: Progress,
        languages: Languages | None = None,
    ) -> Summary:
        """Judge the rows that are not judged yet, and write the output.

        Guarantee and errors: see `FileWork`.
        """
        self._policy, self._languages = policy, languages
        self._has_decision = policy is not None
        return await self._run(guard, batch, retry_s, progress)

    def _item(self, row: Row) -> EventDict:
        return self._reading.event_of(row)

    def _chars(self, item: EventDict) -> int:
        return len(item["text"])

    async def _find(self, guard: Assessor, items: Sequence[EventDict | OneAtFault], retry_s: float) -> list[Finding]:
        requests = [request_of(event) for event in items if not isinstance(event, OneAtFault)]
        deadline = time.monotonic() + retry_s
        found = iter(await ask_with_retries(lambda: guard.assess(requests, deadline), lambda: deadline))
        return [_finding(event if isinstance(event, OneAtFault) else next(found)) for event in items]

    def _write_row(self, writer: Writer, number: int, row: Row, finding: Finding) -> bool:
        if "bad" in finding:
            return False
        decided = {} if self._policy is None else self._decided(self._policy, row, finding)
        writer.write(row, {**finding, **decided})
        return True

    def _decided(self, policy: CompiledPolicy, row: Row, finding: Finding) -> Finding:
        event = self._reading.event_of(row)
        language = event.get("language")
        if self._languages is not None:
            language = self._languages.missing_in(event) or language
        decision, reasons = policy.decide(
            finding["assessment"],
            surface=event["surface"],
            role=event.get("role", "user"),
            language=language,
        )
        return {"decision": decision, "reasons": reasons}


def _finding(answer: Finding | Refused | OneAtFault) -> Finding:
    return bad_finding(answer) if isinstance(answer, (Refused, OneAtFault)) else {"assessment": answer}
