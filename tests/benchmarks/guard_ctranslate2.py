"""`make bench-guard-ctranslate2`: messages/s of guard-nano on each engine, on the same CPU, interleaved.

The guard, its prompts and its texts are the same for all: int8 on CTranslate2, float32 on vLLM and on transformers.
Every text is new in every round, so that no whole prompt lies in a prefix cache.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time

from tests.benchmarks.guard_vllm import CONTEXT_TOKENS, MICRO_BATCH, ON_A_CPU, labels_of, median_ratio
from tests.lines import TEXTS as SAMPLE
from workers.engines.ctranslate2 import CTranslate2Engine
from workers.engines.engine import Engine
from workers.engines.transformers import TransformersEngine
from workers.engines.vllm import VllmEngine
from workers.guard.guard import Guard
from workers.guard.load import checkpoint_folder

ROUNDS = 3
TEXTS = {"ctranslate2": 1_024, "vllm": 256, "transformers": 64}
"""A slow engine gets fewer, so that a round takes seconds with each."""


def guards() -> dict[str, Guard]:
    """Make a guard on each engine."""
    int8, whole = checkpoint_folder("guard-nano"), checkpoint_folder("guard-nano", engine="vllm")
    arguments = {"dtype": "float32", **ON_A_CPU}
    engines: dict[str, Engine] = {
        "ctranslate2": CTranslate2Engine(int8, context_tokens=CONTEXT_TOKENS),
        "vllm": VllmEngine(whole, arguments, context_tokens=CONTEXT_TOKENS),
        "transformers": TransformersEngine(whole, context_tokens=CONTEXT_TOKENS),
    }
    return {
        name: Guard(engine, int8 if name == "ctranslate2" else whole, "guard-nano", context_tokens=CONTEXT_TOKENS)
        for name, engine in engines.items()
    }


async def measure() -> dict[str, list[float]]:
    """Give messages/s, a list of rounds for each engine."""
    made = guards()
    for guard in made.values():
        await guard.start()
        await labels_of(guard, SAMPLE[:MICRO_BATCH])
    rates: dict[str, list[float]] = {name: [] for name in made}
    for round_ in range(ROUNDS):
        for name, guard in made.items():
            texts = [f"{round_} {index}. {SAMPLE[index % len(SAMPLE)]}" for index in range(TEXTS[name])]
            started = time.perf_counter()
            await labels_of(guard, texts)
            rates[name].append(len(texts) / (time.perf_counter() - started))
        print(f"round {round_ + 1}: " + ", ".join(f"{name} {found[-1]:,.0f}/s" for name, found in rates.items()))
    for guard in made.values():
        await guard.close()
    return rates


def main() -> None:
    """Measure, and print one JSON object."""
    rates = asyncio.run(measure())
    print(
        json.dumps(
            {
                "bench": "guard-ctranslate2",
                **{f"{name}_per_s": round(statistics.median(found)) for name, found in rates.items()},
                "ratio_to_vllm": median_ratio(rates["ctranslate2"], rates["vllm"]),
                "ratio_to_transformers": median_ratio(rates["ctranslate2"], rates["transformers"]),
            }
        )
    )


if __name__ == "__main__":
    main()
