"""Trains nano-stream: `python -m infra.nano_stream.train --data TEXTS.jsonl.gz --out FOLDER`. Seeded; see CARD.md.

A kill costs about a minute: the same command goes on from FOLDER/training.pt.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch

from infra.nano.authored import Part
from infra.nano.data import SEED, read
from infra.nano_stream.fit import Fit, Plan
from infra.nano_stream.network import new_network, write
from infra.nano_stream.streams import Stream, Streams
from infra.nano_stream.texts import texts

_NANO = Path(__file__).parents[1] / "nano" / "checkpoint" / "hf"
_LENGTHS = (48, 96, 192, 320, 600)
"""Tokens of a stream; all streams of a step have the same length."""


class Steps:
    """Draws the streams of each step, the same ones in each training."""

    def __init__(self, streams: Streams, rng: random.Random, tokens: int, seed: int) -> None:
        self._streams, self._rng, self._tokens, self._seed = streams, rng, tokens, seed

    def draw(self, step: int) -> list[Stream]:
        """Draw the streams of a step."""
        self._rng.seed(f"{self._seed} {step}")
        length = self._rng.choice(_LENGTHS)
        return [self._streams.stream(length) for _ in range(self._tokens // length)]


def main() -> None:
    """Train, and write FOLDER/hf."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the file with the training texts")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2_500)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--tokens", type=int, default=2_048, help="tokens a step")
    parser.add_argument("--vocabulary", type=int, default=24_000, help="so many of guard-nano's tokens are kept")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    network, tokenizer = new_network(_NANO, arguments.vocabulary)
    rng = random.Random(arguments.seed)  # noqa: S311 - sampling, not a secret
    streams = Streams(texts(Part.TRAINING, read(arguments.data)), tokenizer, rng)
    arguments.out.mkdir(parents=True, exist_ok=True)
    plan = Plan(arguments.steps, arguments.rate, save_every_s=60.0)
    fit = Fit(network, plan, arguments.out / "training.pt")
    fit.run(Steps(streams, rng, arguments.tokens, arguments.seed).draw)
    write(network, tokenizer, arguments.out / "hf")


if __name__ == "__main__":
    main()
