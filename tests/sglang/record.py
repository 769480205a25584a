"""Records what a real SGLang server answers to the engine: `make sglang-recordings`. The everyday tests replay it."""

from __future__ import annotations

import asyncio
import json
import sys

from tests.servers.record import Json, exchanges_with, write
from tests.sglang.serve import served

ABOUT = ("model_path", "tokenizer_path", "served_model_name", "weight_version", "max_req_input_len", "version")
"""The kept fields of the server's description of itself: the others are its options and the machine it ran on."""

REFUSED: tuple[Json, ...] = (
    {"input_ids": [[5] * 400], "sampling_params": {"max_new_tokens": 1, "temperature": 0}},
    {"input_ids": [[5]], "sampling_params": {"max_new_tokens": "one", "temperature": 0}},
    {"input_ids": "five", "sampling_params": {"max_new_tokens": 1, "temperature": 0}},
)
"""A prompt that is too long, and two that are broken: each error has another shape."""


def shortened(exchange: Json) -> Json:
    """Remove the other fields."""
    if exchange["path"] not in ("/model_info", "/server_info"):
        return exchange
    about = json.loads(exchange["answer"])
    return {**exchange, "answer": json.dumps({name: value for name, value in about.items() if name in ABOUT})}


if __name__ == "__main__":
    found = [shortened(exchange) for exchange in asyncio.run(exchanges_with(served(), "/generate", REFUSED))]
    write("sglang-answers.json", found, lambda row: row.replace(sys.prefix, "/environment"))
