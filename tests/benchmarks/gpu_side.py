"""One side of `make bench-gpu`, in its own process: starts its engine, then runs the requested measurements, line by
line, and answers each line with one of JSON."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import psutil
import uvloop

from tests.answers import answered
from tests.benchmarks.gpu_pooling import PoolingEngine, pooling_arguments
from tests.checkpoints.random_qwen import answer_tokens
from tests.lines import TEXTS
from workers.engines.vllm import VllmEngine
from workers.guard.guard import Guard, Request
from workers.guard.opinion import SEVERITIES
from workers.guard.prompt import FORCED, Prompts
from workers.guard.template import Template
from workers.guard.tokens import Tokens

CONTEXT_TOKENS = 2_048
Row = dict[str, Any]


class Side(Protocol):
    """An engine to measure."""

    async def start(self) -> None:
        """Load it."""
        ...

    async def judge(self, texts: Sequence[str]) -> None:
        """Judge texts that it has not seen before."""
        ...


class Ours:
    """The guard on our engine. Without weights: the severity's question alone, which is all that a safe text costs."""

    def __init__(self, order: Row) -> None:
        folder = Path(order["folder"])
        self._severity = order.get("severity")
        is_pooling = order["side"] == "pooling"
        more = pooling_arguments(folder) if is_pooling else {}
        make = PoolingEngine if is_pooling else VllmEngine
        self._engine = make(folder, {**order["arguments"], **more}, context_tokens=CONTEXT_TOKENS)
        self._guard = Guard(self._engine, folder, "random", context_tokens=CONTEXT_TOKENS)
        tokens = Tokens(folder)
        self.labels = tokens.first(SEVERITIES)
        self._prompts = prompts_of(folder)

    async def start(self) -> None:
        """Load it; not the guard's own start, whose self-check refuses random weights, and rightly so."""
        await self._engine.start(self._prompts.shared_tokens)

    async def judge(self, texts: Sequence[str]) -> None:
        """Judge the texts."""
        requests = [Request(text) for text in texts]
        if self._severity is None:
            await self.rows(texts)
            return
        said = {assessment["severity"] for assessment in answered(await self._guard.assess(requests))}
        if said != {self._severity}:
            raise SystemExit(f"the guard said {sorted(said)}")

    async def rows(self, texts: Sequence[str]) -> list[list[float]]:
        """Give the severities' log-probabilities."""
        prompts = answered(self._prompts.build([Request(text) for text in texts]))
        return answered(await self._engine.score([ids for prompt in prompts for ids in prompt.ids], self.labels))


class Recipe:
    """The model card's way: vLLM's `chat` with its default settings."""

    def __init__(self, order: Row) -> None:
        self._folder = Path(order["folder"])
        self._arguments = order["arguments"]
        self._answer_tokens = answer_tokens(self._folder, order.get("severity") or "Safe")
        self._llm: Any = None
        self._sampling: Any = None

    async def start(self) -> None:
        """Load it."""
        from vllm import LLM, SamplingParams

        self._llm = LLM(str(self._folder), max_model_len=CONTEXT_TOKENS, **self._arguments)
        count = self._answer_tokens
        self._sampling = SamplingParams(temperature=0, max_tokens=count, min_tokens=count, ignore_eos=True)

    async def judge(self, texts: Sequence[str]) -> None:
        """Judge the texts."""
        self._llm.chat([[{"role": "user", "content": text}] for text in texts], self._sampling, use_tqdm=False)


def prompts_of(folder: Path) -> Prompts:
    """Build prompts as the guard does."""
    return Prompts(
        Tokens(folder),
        Template(folder),
        context_tokens=CONTEXT_TOKENS,
        overlap=64,
        max_windows=8,
        forced=FORCED,
        reserve=32,
    )


BEHIND = 1_000_000
"""The first number of the texts that are compared with transformers."""


class Measure:
    """Runs what the lines ask for."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._number = itertools.count()

    def _fresh(self, count: int) -> list[str]:
        # The number comes first: nothing behind it can lie in a prefix cache.
        return [f"{number}. {TEXTS[number % len(TEXTS)]}" for number in itertools.islice(self._number, count)]

    async def throughput(self, *, seconds: float, micro_batch: int, in_flight: int) -> Row:
        """Count messages, and the CPU seconds that each process took a second."""
        this = psutil.Process()
        processes = [this, *this.children(recursive=True)]
        before = [sum(process.cpu_times()[:2]) for process in processes]
        started = time.perf_counter()
        done = 0

        async def ask() -> None:
            nonlocal done
            while time.perf_counter() - started < seconds:
                await self._side.judge(self._fresh(micro_batch))
                done += micro_batch

        await asyncio.gather(*(ask() for _ in range(in_flight)))
        took = time.perf_counter() - started
        used = [sum(process.cpu_times()[:2]) - was for process, was in zip(processes, before, strict=True)]
        return {"per_s": round(done / took), "cores": [round(value / took, 2) for value in used if value / took > 0.05]}

    async def lone(self, *, count: int) -> Row:
        """Time messages that are alone."""
        took: list[float] = []
        for text in self._fresh(count):
            started = time.perf_counter()
            await self._side.judge([text])
            took.append(1_000 * (time.perf_counter() - started))
        took.sort()
        return {"p50_ms": round(statistics.median(took), 2), "p99_ms": round(took[int(0.99 * len(took))], 2)}

    async def rows(self, *, count: int) -> Row:
        """Give the severities' log-probabilities of some texts that are judged among many others."""
        side = self._side
        assert isinstance(side, Ours)
        texts = [f"{BEHIND + number}. {TEXTS[number]}" for number in range(count)]
        others = [self._fresh(256) for _ in range(4)]
        rows, *_ = await asyncio.gather(side.rows(texts), *(side.judge(part) for part in others))
        return {"texts": texts, "labels": side.labels, "rows": rows}


async def serve(order: Row, answers: Any) -> None:
    """Start, say so, and obey until the lines end."""
    side: Side = Recipe(order) if order["side"] == "recipe" else Ours(order)
    started = time.perf_counter()
    await side.start()
    measure = Measure(side)
    await measure.lone(count=2)
    print(json.dumps({"start_s": round(time.perf_counter() - started, 1)}), file=answers, flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        do = json.loads(line)
        found = await getattr(measure, do.pop("do"))(**do)
        print(json.dumps(found), file=answers, flush=True)


def main() -> None:
    """Obey; vLLM's log goes where errors go."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # As the worker does.
        runner.run(serve(json.loads(sys.argv[1]), answers))
    os._exit(0)  # vLLM's recipe has no end of its own that is quick.


if __name__ == "__main__":
    main()
