"""Records what a real `vllm serve` answers to the engine: `make engine-recordings`. The everyday tests replay it."""

from __future__ import annotations

import asyncio

from tests.servers.record import Json, exchanges_with, write
from tests.vllm.serve import MODEL, served

REFUSED: tuple[Json, ...] = (
    {"model": MODEL, "prompt": [[5] * 400], "max_tokens": 1},
    {"model": "other", "prompt": [[5]]},
)

if __name__ == "__main__":
    write("vllm-answers.json", asyncio.run(exchanges_with(served(), "/v1/completions", REFUSED)))
