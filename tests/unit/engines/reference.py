"""Records the reference engine's results for guard-nano: `make engine-reference`.

The conformance suite holds every engine to it, so that torch is needed to record it and not to test.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.answers import answered
from tests.lines import TEXTS as SAMPLE
from workers.engines.transformers import TransformersEngine
from workers.guard.load import checkpoint_folder
from workers.guard.opinion import CATEGORIES, NONE, SEVERITIES
from workers.guard.prompt import Prompts, Request
from workers.guard.template import Template
from workers.guard.tokens import Tokens

FILE = Path(__file__).with_name("reference.json")
CONTEXT_TOKENS = 256
COMPLETION_TOKENS = 12
TEXTS = 24
VOCABULARY = Tokens(checkpoint_folder("guard-nano", engine="transformers")).size


@dataclass(frozen=True)
class Reference:
    """The reference engine's results: one row for each prompt, first those of `texts` real texts."""

    weights: str
    texts: int
    candidates: list[int]
    prompts: list[list[int]]
    scores: list[list[float]]
    completions: list[list[int]]


def weights_digest() -> str:
    """Name the checkpoint that was recorded."""
    weights = checkpoint_folder("guard-nano", engine="transformers") / "model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def read_reference() -> Reference:
    """Read what was recorded."""
    return Reference(**json.loads(FILE.read_text(encoding="utf-8")))


def prompts_and_candidates() -> tuple[list[list[int]], list[int]]:
    """Give prompts of real texts and of arbitrary ids, and the first tokens of all labels."""
    folder = checkpoint_folder("guard-nano", engine="transformers")
    tokens = Tokens(folder)
    requests = [Request(text) for text in SAMPLE[:TEXTS]]
    made = Prompts(tokens, Template(folder), context_tokens=CONTEXT_TOKENS, overlap=16, max_windows=1, reserve=32)
    real = [ids for prompt in answered(made.build(requests)) for ids in prompt.ids]
    arbitrary = [list(range(300, 300 + length)) for length in (3, 40, 7, 7, 120, 1, 64)]
    return real + arbitrary, tokens.first(SEVERITIES) + tokens.first([*CATEGORIES, NONE])


async def record() -> dict[str, Any]:
    """Ask the reference engine."""
    prompts, candidates = prompts_and_candidates()
    engine = TransformersEngine(checkpoint_folder("guard-nano", engine="transformers"), context_tokens=CONTEXT_TOKENS)
    await engine.start()
    scores = answered(await engine.score(prompts, candidates))
    completions = await engine.complete(prompts, COMPLETION_TOKENS)
    await engine.close()
    return {
        "weights": weights_digest(),
        "texts": TEXTS,
        "candidates": candidates,
        "prompts": prompts,
        "scores": [[round(value, 6) for value in row] for row in scores],
        "completions": completions,
    }


if __name__ == "__main__":
    rows = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in asyncio.run(record()).items()]
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")
