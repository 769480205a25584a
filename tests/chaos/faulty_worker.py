"""The worker's own command with a fault inside: `python -m tests.chaos.faulty_worker FAULT`.

FAULT is `gate FILE`, `slow FILE`, `lag`, `down FILE`, `stuck FILE`, `crawl`, `break FILE`, `die`, `fail`,
`late`, `hang`, `seldom`, `freeze FILE`, or one of `FAILING`.

`gate`: while FILE exists, the guard answers nothing. `slow`: only micro-batches with the text SLOW wait for it.
`lag`: the guard takes LAG_S for each micro-batch. `down`: while FILE exists, the engine fails.
`stuck`: while FILE exists, the engine's threads do not return. `crawl`: they take CRAWL_S for each of their batches.
`break`: once FILE exists, the Kafka thread fails.
`assign`, `revoke`: the ledger fails in that rebalance callback. `complete`: it fails when it collects results.
`submit`, `remember`, `follow`, `beat`: that part of the event loop's work fails.
`die`: it is killed in a transaction just before the commit. `fail`: it fails there.
`late`: a transaction takes all its allowed time, and logs how long that is.
`hang`: a call to Kafka inside a transaction never returns.
`seldom`: a heartbeat every `SELDOM_MS`.
`freeze`: once FILE exists, the streams worker stops itself (SIGSTOP), once, in a transaction before its outputs.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog

from workers.cli import app as cli
from workers.core.batcher import Batcher
from workers.core.ledger import Ledger
from workers.core.records import Finished
from workers.engines.ctranslate2 import CTranslate2Engine
from workers.guard.guard import Guard, Refused, Request
from workers.kafka import clients
from workers.kafka.loop import KafkaThread
from workers.kafka.outbox import Outbox
from workers.redis.crash_notes import CrashNotes
from workers.redis.memories import Memories
from workers.redis.policy_cache import PolicyCache

AT_THE_GATE = "at the gate"
ALLOWED = "a transaction began"
SLOW = "a slow text"
STUCK = "stuck in the engine"
LAG_S = 0.1
CRAWL_S = 0.3
SELDOM_MS = 2_500


def hold_at(gate: Path, text: str = "") -> None:
    assess = Guard.assess

    def wait() -> None:
        while gate.exists():
            time.sleep(0.02)

    async def assess_when_open(
        self: Guard, requests: Sequence[Request], deadline: float = math.inf
    ) -> list[dict[str, Any] | Refused]:
        if any(text in request.text for request in requests):
            structlog.get_logger().info(AT_THE_GATE, texts=[request.text for request in requests])
            await asyncio.to_thread(wait)
        return await assess(self, requests, deadline)

    Guard.assess = assess_when_open  # type: ignore[method-assign]  # the fault


def lag() -> None:
    assess = Guard.assess

    async def assess_late(
        self: Guard, requests: Sequence[Request], deadline: float = math.inf
    ) -> list[dict[str, Any] | Refused]:
        structlog.get_logger().info(AT_THE_GATE, texts=[request.text for request in requests])
        await asyncio.sleep(LAG_S)
        return await assess(self, requests, deadline)

    Guard.assess = assess_late  # type: ignore[method-assign]  # the fault


def fail_at(file: Path) -> None:
    score = CTranslate2Engine._score

    def score_or_fail(*arguments: Any) -> list[list[float] | Refused]:
        if file.exists():
            raise RuntimeError("out of memory")
        return score(*arguments)

    CTranslate2Engine._score = score_or_fail  # type: ignore[assignment,method-assign]  # the fault


def stick_at(file: Path) -> None:
    score = CTranslate2Engine._score

    def score_when_gone(*arguments: Any) -> list[list[float] | Refused]:
        if file.exists():
            structlog.get_logger().info(STUCK)
        while file.exists():
            time.sleep(0.02)
        return score(*arguments)

    CTranslate2Engine._score = score_when_gone  # type: ignore[assignment,method-assign]  # the fault


def crawl() -> None:
    generate = CTranslate2Engine._generate

    def generate_slowly(*arguments: Any, **options: Any) -> Iterator[tuple[list[int], list[Any]]]:
        for batch in generate(*arguments, **options):
            time.sleep(CRAWL_S)
            yield batch

    CTranslate2Engine._generate = generate_slowly  # type: ignore[method-assign]  # the fault


def break_at(file: Path) -> None:
    turn = KafkaThread._turn

    def turn_or_fail(self: KafkaThread[Any]) -> None:
        if file.exists():
            raise RuntimeError("injected into the Kafka thread")
        turn(self)

    KafkaThread._turn = turn_or_fail  # type: ignore[method-assign]  # the fault


FAILING: dict[str, tuple[type, str]] = {
    "assign": (Ledger, "assign"),
    "revoke": (Ledger, "revoke"),
    "complete": (Ledger, "complete"),
    "submit": (Batcher, "add"),
    "remember": (Memories, "_write"),
    "follow": (PolicyCache, "_read_changes"),
    "beat": (CrashNotes, "_beat_for_ever"),
}


def fail_on(fault: str) -> None:
    def fail(*_: object) -> None:
        raise ValueError(f"injected into {fault}")  # An error that a too broad `except` would treat as bad data.

    async def fail_later(*_: object) -> None:
        await asyncio.sleep(1)  # Not during the start, where the caller would see the error.
        fail()

    owner, name = FAILING[fault]
    setattr(owner, name, fail_later if inspect.iscoroutinefunction(getattr(owner, name)) else fail)


def before_records(act: Callable[[float], object]) -> None:
    """Act before the outputs of each transaction with outputs, and not in transactions of positions only."""
    produce = Outbox._produce

    def produce_later(self: Outbox, records: Sequence[Finished], deadline: float) -> None:
        if records:
            act(deadline)
        produce(self, records, deadline)

    Outbox._produce = produce_later  # type: ignore[method-assign]  # the fault


def hang_in_a_transaction() -> None:
    before_records(lambda _: threading.Event().wait())


def end_before_the_commit(end: Callable[[], object]) -> None:
    until = Outbox._until
    has_records = threading.Event()
    before_records(lambda _: has_records.set())

    def until_the_last_step(self: Outbox, deadline: float, call: Callable[[], Any], *, is_commit: bool = False) -> None:
        if is_commit and has_records.is_set():
            end()
        until(self, deadline, call, is_commit=is_commit)

    Outbox._until = until_the_last_step  # type: ignore[method-assign]  # the fault


def freeze_at(file: Path) -> None:
    def freeze(_: float) -> None:
        if file.exists():
            file.unlink()
            # Sent to the process, another thread might get the signal, and this one would go on for a moment.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    before_records(freeze)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fail() -> None:
    raise RuntimeError("injected before the commit")


def use_all_time() -> None:
    def wait(deadline: float) -> None:
        seconds = deadline - time.monotonic()
        structlog.get_logger().info(ALLOWED, seconds=round(seconds, 1))
        time.sleep(max(0.0, seconds))

    before_records(wait)


def main() -> None:
    fault, *arguments = sys.argv[1:]
    if fault == "gate":
        hold_at(Path(arguments[0]))
    elif fault == "slow":
        hold_at(Path(arguments[0]), SLOW)
    elif fault == "lag":
        lag()
    elif fault == "down":
        fail_at(Path(arguments[0]))
    elif fault == "crawl":
        crawl()
    elif fault == "seldom":
        clients.HEARTBEAT_MS = SELDOM_MS
    elif fault == "break":
        break_at(Path(arguments[0]))
    elif fault == "die":
        end_before_the_commit(die)
    elif fault == "fail":
        end_before_the_commit(fail)
    elif fault == "late":
        use_all_time()
    elif fault == "stuck":
        stick_at(Path(arguments[0]))
    elif fault == "hang":
        hang_in_a_transaction()
    elif fault == "freeze":
        freeze_at(Path(arguments[0]))
    else:
        fail_on(fault)
    sys.argv = ["guardline", "worker", "streams" if fault == "freeze" else "moderation"]
    cli.main()


if __name__ == "__main__":
    main()
