"""`make bench-guard-vllm`: our guard against the model card's recipe, on the same vLLM and the same texts, interleaved.

The recipe: vLLM's `chat` with its default settings, the whole answer generated greedily and parsed. Each side has an
engine of its own; only one of them works at a time, after the other has fallen asleep, and each begins every other
round. Every text is new to both, so that no whole prompt lies in a prefix cache.
Beside the clock stands the CPU time of each side's processes, which other work on the machine disturbs less.

Once with guard-nano, twice at the dimensions of Qwen3Guard-Gen-0.6B with its real vocabulary and random weights: once
they call every text safe, once every text unsafe, which costs the guard a second question. Random weights do not know
when to end, so that the recipe there generates as many tokens as the shortest true answer with that severity has.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import psutil
import uvloop

from tests.answers import answered
from tests.checkpoints.random_qwen import answer_tokens, write_random
from tests.lines import TEXTS
from workers.engines.engine import Refused
from workers.engines.vllm import VllmEngine
from workers.engines.vllm_platform import BLOCK_TOKENS_ON_A_CPU, ON_ALL_CORES
from workers.guard.guard import Guard, Request
from workers.guard.load import checkpoint_folder
from workers.guard.prompt import FORCED
from workers.guard.tokens import Tokens

ROUNDS = 5
MICRO_BATCH = 32
CONTEXT_TOKENS = 2_048
ASLEEP_S = 1.2
"""For a second after its last step vLLM asks for the next one in a loop, on the core that the other side needs."""

LABEL = re.compile(r"Safety: (Safe|Controversial|Unsafe)")
SET_BEFORE = set(os.environ)
"""Variables for both sides: `VLLM_CPU_NUM_OF_RESERVED_CPU=0 make bench-guard-vllm` gives the recipe all cores too."""

ON_A_CPU: dict[str, Any] = {"enforce_eager": True}
"""For both sides: to compile would take longer than to measure."""


@dataclass(frozen=True)
class Model:
    """A checkpoint to measure with, and how much of it this machine can take."""

    name: str
    folder: Path
    dtype: str
    texts: int
    lone: int
    """Texts that are judged alone, in each round."""
    answer_tokens: int | None = None
    """How long the recipe's answers are, where the model does not end them itself."""
    severity: str | None = None
    """The label that the model gives every text."""


def nano() -> Model:
    """Give guard-nano."""
    return Model("guard-nano", checkpoint_folder("guard-nano", engine="vllm"), "float32", texts=256, lone=8)


def random_of_0_6b(folder: Path, severity: str) -> Model:
    """Write a checkpoint of the dimensions of Qwen3Guard-Gen-0.6B, with Qwen's vocabulary and random weights.

    They call every text `severity`.
    """
    write_random(folder, "0.6B", severity)
    name = f"0.6B dimensions, all {severity}"
    return Model(
        name, folder, "bfloat16", texts=10, lone=2, answer_tokens=answer_tokens(folder, severity), severity=severity
    )


class Recipe:
    """The model card's way."""

    def __init__(self, model: Model) -> None:
        from vllm import LLM, SamplingParams

        # Default settings: what our engine has set for vLLM in this process is not among them.
        for name in ON_ALL_CORES.keys() - SET_BEFORE:
            os.environ.pop(name, None)
        self._llm = LLM(str(model.folder), dtype=model.dtype, max_model_len=CONTEXT_TOKENS, **ON_A_CPU)
        fixed = model.answer_tokens
        self._sampling = SamplingParams(
            temperature=0, max_tokens=fixed or 128, min_tokens=fixed or 0, ignore_eos=fixed is not None
        )
        self.generated = 0

    def close(self) -> None:
        """End its processes."""
        self._llm.llm_engine.engine_core.shutdown()

    def labels(self, texts: list[str]) -> list[str | None]:
        """Judge the texts."""
        answers = self._llm.chat(
            [[{"role": "user", "content": text}] for text in texts], self._sampling, use_tqdm=False
        )
        outputs = [answer.outputs[0] for answer in answers]
        self.generated += sum(len(output.token_ids) for output in outputs)
        found = [LABEL.search(output.text) for output in outputs]
        return [match[1] if match else None for match in found]


class CpuClock:
    """The CPU seconds of one side: of this process, and of the processes that its engine started."""

    def __init__(self, engine: list[psutil.Process]) -> None:
        self._processes = [psutil.Process(), *engine]

    def now(self) -> float:
        """Give the seconds used so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self._processes)


async def labels_of(guard: Guard, texts: list[str]) -> list[str | None]:
    """Judge the texts in micro-batches, all in flight at once."""
    parts = [texts[start : start + MICRO_BATCH] for start in range(0, len(texts), MICRO_BATCH)]
    judged = await asyncio.gather(*(guard.assess([Request(text) for text in part]) for part in parts))
    return [str(assessment["severity"]) for part in judged for assessment in answered(part)]


async def measure(model: Model) -> dict[str, Any]:
    """Run the rounds; give medians, and the medians of the rounds' ratios."""
    engine = CountingEngine(model.folder, {"dtype": model.dtype, **ON_A_CPU}, context_tokens=CONTEXT_TOKENS)
    guard = Guard(engine, model.folder, model.name, context_tokens=CONTEXT_TOKENS)
    # Not the guard's own start: its self-check refuses random weights, and rightly so.
    await engine.start()
    this = psutil.Process()
    ours_started = this.children(recursive=True)
    recipe = Recipe(model)
    our_clock = CpuClock(ours_started)
    their_clock = CpuClock([child for child in this.children(recursive=True) if child not in ours_started])
    number = iter(range(1_000_000))

    def fresh(count: int) -> list[str]:
        # The number comes first: nothing behind it can lie in a prefix cache.
        return [f"{index}. {TEXTS[index % len(TEXTS)]}" for index in (next(number) for _ in range(count))]

    # Both warm: the fixed beginning of every prompt is in both caches.
    warm = fresh(4)
    await labels_of(guard, warm)
    recipe.labels(warm)
    engine.prompts.clear()
    engine.further.clear()
    recipe.generated = 0
    ours: list[float] = []
    theirs: list[float] = []
    our_cpu: list[float] = []
    their_cpu: list[float] = []
    our_latency: list[float] = []
    their_latency: list[float] = []
    same = 0
    for round_ in range(ROUNDS):
        texts = fresh(model.texts)
        mine: list[str | None] = []
        its: list[str | None] = []
        for is_ours in (True, False) if round_ % 2 else (False, True):
            await asyncio.sleep(ASLEEP_S)
            clock = our_clock if is_ours else their_clock
            cpu, started = clock.now(), time.perf_counter()
            if is_ours:
                mine = await labels_of(guard, texts)
            else:
                its = recipe.labels(texts)
            (ours if is_ours else theirs).append(len(texts) / (time.perf_counter() - started))
            (our_cpu if is_ours else their_cpu).append(clock.now() - cpu)
        if model.severity is not None and set(mine) != {model.severity}:
            raise SystemExit(f"{model.name}: the guard said {sorted(set(map(str, mine)))}")
        same += sum(one == other for one, other in zip(mine, its, strict=True))
        texts = fresh(model.lone)
        for is_ours in (True, False) if round_ % 2 else (False, True):
            await asyncio.sleep(ASLEEP_S)
            for text in texts:
                started = time.perf_counter()
                if is_ours:
                    await labels_of(guard, [text])
                else:
                    recipe.labels([text])
                (our_latency if is_ours else their_latency).append(time.perf_counter() - started)
        print(f"{model.name}, round {round_ + 1}: guard {ours[-1]:.1f}/s, recipe {theirs[-1]:.1f}/s", flush=True)
    judged = ROUNDS * (model.texts + model.lone)
    shared = sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, zip(*engine.prompts, strict=False)))
    prefill = sum(len(prompt) - shared for prompt in engine.prompts) / judged
    further = sum(map(engine.to_compute, engine.further)) / judged
    # `Safety:` is in the guard's prompts and in the recipe's answers; an answer's last token is not computed again.
    whole = prefill - len(Tokens(model.folder).fixed(FORCED)) + recipe.generated / judged - 1
    await guard.close()
    recipe.close()
    return {
        "guard_per_s": round(statistics.median(ours), 2),
        "recipe_per_s": round(statistics.median(theirs), 2),
        "ratio": median_ratio(ours, theirs),
        "guard_cpu_ms": round(1_000 * statistics.median(our_cpu) / model.texts, 2),
        "recipe_cpu_ms": round(1_000 * statistics.median(their_cpu) / model.texts, 2),
        "cpu_ratio": median_ratio(their_cpu, our_cpu),
        "guard_lone_ms": round(1_000 * statistics.median(our_latency), 1),
        "recipe_lone_ms": round(1_000 * statistics.median(their_latency), 1),
        "lone_latency_ratio": median_ratio(our_latency, their_latency),
        "further_questions": round(len(engine.further) / judged, 2),
        "tokens_to_compute": {
            "guard": round(prefill, 1),
            "guard_further": round(further, 1),
            "recipe": round(whole, 1),
        },
        "same_label": None if model.answer_tokens else round(same / (ROUNDS * model.texts), 4),
    }


class CountingEngine(VllmEngine):
    """The engine, noting the prompts: those about the severity, and those of the further questions."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.prompts: list[list[int]] = []
        self.further: list[list[int]] = []

    async def score(self, prompts: Any, candidates: Any, deadline: float = math.inf) -> list[list[float] | Refused]:
        """Answer, and note the question."""
        noted = self.prompts if len(candidates) == 3 else self.further
        noted.extend(list(prompt) for prompt in prompts)
        return await super().score(prompts, candidates, deadline)

    def to_compute(self, further: list[int]) -> int:
        """Give the tokens of a further question that are not in the prefix cache, which holds whole blocks only."""
        asked = {tuple(prompt) for prompt in self.prompts}
        end = next(end for end in range(len(further) - 1, 0, -1) if tuple(further[:end]) in asked)
        return len(further) - end // BLOCK_TOKENS_ON_A_CPU * BLOCK_TOKENS_ON_A_CPU


def median_ratio(mine: list[float], its: list[float]) -> float:
    """Give the median of the ratios of pairs that were measured side by side."""
    return round(statistics.median(one / other for one, other in zip(mine, its, strict=True)), 3)


def main() -> None:
    """Measure the models that are named, or all three, and print one JSON object."""
    models: dict[str, Callable[[Path], Model]] = {
        "nano": lambda _: nano(),
        "0.6b-safe": lambda folder: random_of_0_6b(folder, "Safe"),
        "0.6b-unsafe": lambda folder: random_of_0_6b(folder, "Unsafe"),
    }
    found: dict[str, Any] = {"bench": "guard-vllm"}
    with tempfile.TemporaryDirectory(prefix="guardline-0.6b-") as folder:
        for name in sys.argv[1:] or models:
            model = models[name](Path(folder, name))
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # As the worker does.
                found[name] = runner.run(measure(model))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
