"""A whole worker with a clock: with the engine of the settings, or with a stand-in.

    python -m tests.benchmarks.timed_worker COUNT [instant | simulated-gpu | fixed-pace] [unobserved]

It ends by itself when COUNT records are committed, and prints one JSON object: the seconds since its first poll (of
wall time, and of CPU time of the whole process), and those since its first record, without the joining of the group.
`unobserved`: without metrics and logs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time

import uvloop
from confluent_kafka import Consumer, Message

from tests.benchmarks import unobserved
from tests.benchmarks.stand_ins import FixedPace, InstantEngine, SimulatedGpu, UncheckedGuard
from workers.core.ledger import Ledger, Prefix
from workers.guard.load import checkpoint_folder
from workers.kafka.intake import Intake
from workers.kafka.outbox import Outbox
from workers.moderation.worker import Worker
from workers.process.logs import log_to_stderr
from workers.settings import load

STAND_INS = {"instant": InstantEngine, "simulated-gpu": SimulatedGpu, "fixed-pace": FixedPace}


class Clock:
    """Starts at the first poll, stops when `count` records are committed, and then ends the process as a user would."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._started: tuple[float, float] | None = None
        self._first_record: float | None = None
        poll, commit = Intake.poll, Outbox.commit

        def timed_poll(intake: Intake, count: int, timeout_s: float) -> list[Message]:
            self._started = self._started or (time.monotonic(), time.process_time())
            messages = poll(intake, count, timeout_s)
            if messages:
                self._first_record = self._first_record or time.monotonic()
            return messages

        def counted_commit(
            outbox: Outbox, ledger: Ledger, prefix: Prefix, consumer: Consumer, deadline: float | None = None
        ) -> bool:
            is_committed = commit(outbox, ledger, prefix, consumer, deadline)
            if is_committed:
                self._left -= len(prefix)
                if self._left <= 0:
                    self._stop()
            return is_committed

        Intake.poll = timed_poll  # type: ignore[assignment,method-assign]
        Outbox.commit = counted_commit  # type: ignore[assignment,method-assign]

    def _stop(self) -> None:
        assert self._started is not None
        assert self._first_record is not None
        now, (wall, cpu) = time.monotonic(), self._started
        seconds = {"wall_s": now - wall, "cpu_s": time.process_time() - cpu, "flow_s": now - self._first_record}
        print(json.dumps(seconds), flush=True)
        os.kill(os.getpid(), signal.SIGTERM)


async def main() -> None:
    """Run until everything is committed."""
    log_to_stderr()
    if "unobserved" in sys.argv:
        unobserved.observe_nothing()
    settings = load()
    Clock(int(sys.argv[1]))
    guard = None
    for name in STAND_INS.keys() & sys.argv[2:]:
        guard = UncheckedGuard(STAND_INS[name](), checkpoint_folder("guard-nano"), name)
    await Worker(settings, guard).run()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
