"""`make bench-end-to-end`: messages/s from topic to topic with guard-nano, against the bare engine, interleaved.

The bare engine gets the very calls that the guard made of the same texts: the same prompts in batches of the same
size, as many in flight, and nothing else to do. The worker's clock runs from its first record to its last commit:
joining the group is not part of the flow.

Twice: with one core for the engine (`ratio`), as an engine on a GPU or in another process has what it needs; and with
all cores (`ratio_all_cores`), of which the broker, Redis and the worker's own threads then take their part.
"""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence

from infra.devstack.stack import running
from tests.benchmarks.run_worker import run_worker
from tests.lines import TEXTS
from tests.site import Site
from workers.engines.ctranslate2 import CTranslate2Engine
from workers.engines.engine import Engine
from workers.guard.guard import Guard, Refused, Request
from workers.guard.load import checkpoint_folder
from workers.settings import Settings

RECORDS = 16_000
ROUNDS = 3

Call = tuple[list[list[int]], list[int]]


class Recorder(CTranslate2Engine):
    """The engine, with a record of its calls."""

    calls: list[Call]

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = math.inf
    ) -> list[list[float] | Refused]:
        """Answer, and note the question."""
        self.calls.append(([list(prompt) for prompt in prompts], list(candidates)))
        return await super().score(prompts, candidates, deadline)


def texts(count: int) -> list[str]:
    """Repeat the texts of the sample, each with a number of its own, so that none is answered from an earlier one."""
    return [f"{TEXTS[number % len(TEXTS)]} {number}" for number in range(count)]


async def calls_of(content: Sequence[str], size: int) -> list[Call]:
    """Give what the guard asks the engine, a micro-batch of `size` after the other."""
    folder = checkpoint_folder("guard-nano")
    engine = Recorder(folder)
    guard = Guard(engine, folder, "guard-nano")
    engine.calls = []
    await guard.start()
    engine.calls.clear()
    for start in range(0, len(content), size):
        await guard.assess([Request(text) for text in content[start : start + size]])
    await guard.close()
    return engine.calls


async def bare(engine: Engine, calls: Sequence[Call], in_flight: int) -> float:
    """Replay the calls, as many in flight as the worker has; return the seconds."""
    await engine.start()
    slots = asyncio.Semaphore(in_flight)

    async def ask(call: Call) -> None:
        async with slots:
            await engine.score(*call)

    started = time.monotonic()
    await asyncio.gather(*map(ask, calls))
    seconds = time.monotonic() - started
    await engine.close()
    return seconds


def main() -> None:
    """Run the rounds and print one JSON object."""
    content = texts(RECORDS)
    limits = Settings().batch
    calls = asyncio.run(calls_of(content, limits.max_count))
    whole: dict[int | None, list[float]] = {None: [], 1: []}
    engine: dict[int | None, list[float]] = {None: [], 1: []}
    with running() as stack:
        for round_ in range(ROUNDS):
            for threads in whole:
                site = Site(stack.kafka, stack.redis, partitions=6)
                site.create_topics()
                site.produce(records(content))
                alone = CTranslate2Engine(checkpoint_folder("guard-nano"), threads=threads)
                engine[threads].append(RECORDS / asyncio.run(bare(alone, calls, limits.in_flight)))
                whole[threads].append(run_worker(site, RECORDS, threads=threads).flow_per_s)
                print(
                    f"round {round_ + 1}, {threads or 'all'} cores for the engine: topic to topic "
                    f"{whole[threads][-1]:,.0f}/s, bare engine {engine[threads][-1]:,.0f}/s",
                    flush=True,
                )
                site.close()

    def ratio(threads: int | None) -> float:
        pairs = zip(whole[threads], engine[threads], strict=True)
        return round(statistics.median(mine / its for mine, its in pairs), 3)

    print(
        json.dumps(
            {
                "bench": "end-to-end",
                "records": RECORDS,
                "worker_per_s": round(statistics.median(whole[1])),
                "engine_per_s": round(statistics.median(engine[1])),
                "ratio": ratio(1),
                "all_cores_worker_per_s": round(statistics.median(whole[None])),
                "all_cores_engine_per_s": round(statistics.median(engine[None])),
                "ratio_all_cores": ratio(None),
            }
        )
    )


def records(content: Sequence[str]) -> Iterator[tuple[bytes, bytes]]:
    """Give keys and values of minimal events, numbered as the texts are."""
    for number, text in enumerate(content):
        event = {"event_id": f"e{number}", "tenant_id": "acme", "surface": "chat", "text": text}
        yield f"room-{number % 500}".encode(), json.dumps(event).encode()


if __name__ == "__main__":
    main()
