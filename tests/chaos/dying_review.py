"""The review worker's own command, which kills itself: `python -m tests.chaos.dying_review MOMENT ITEM`.

MOMENT is `produced`: the brokers have all outputs of the transaction, and it is not committed; or `committed`: it is
committed, and nobody has an answer. ITEM is a verdict id: only the transaction with its superseding verdict counts.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from workers.cli import app as cli
from workers.core.records import Finished
from workers.kafka.outbox import Outbox

MOMENTS = ("produced", "committed")


def die_at(moment: str, verdict_id: str) -> None:
    produce, until = Outbox._produce, Outbox._until
    is_near = False

    def produce_and_remember(self: Outbox, records: Sequence[Finished], deadline: float) -> None:
        nonlocal is_near
        produce(self, records, deadline)
        is_near = any(_supersedes(output.value) == verdict_id for record in records for output in record.outputs)

    def until_the_moment(self: Outbox, deadline: float, call: Callable[[], Any], *, is_commit: bool = False) -> None:
        if is_near and is_commit and moment == "produced":
            assert self._producer.flush(30) == 0
            os.kill(os.getpid(), signal.SIGKILL)
        until(self, deadline, call, is_commit=is_commit)
        if is_near and is_commit:
            os.kill(os.getpid(), signal.SIGKILL)

    Outbox._produce = produce_and_remember  # type: ignore[method-assign]  # the fault
    Outbox._until = until_the_moment  # type: ignore[method-assign]  # the fault


def _supersedes(value: bytes | None) -> object:
    return None if value is None else json.loads(value).get("supersedes")


def main() -> None:
    moment, verdict_id = sys.argv[1:]
    assert moment in MOMENTS
    die_at(moment, verdict_id)
    sys.argv = ["guardline", "worker", "review"]
    cli.main()


if __name__ == "__main__":
    main()
