"""Trains guard-nano: `python -m infra.nano.train --data TEXTS.jsonl.gz --out FOLDER`. Seeded; see CARD.md.

A kill costs at most half a minute: the same command goes on from FOLDER/training.pt.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import Qwen3ForCausalLM

from infra.nano.batches import Epochs
from infra.nano.convert import convert
from infra.nano.corpus import Text, corpus
from infra.nano.data import SEED, Row, hold_out_rows, read
from infra.nano.encoder import word_vectors
from infra.nano.fit import Fit, Plan
from infra.nano.measure import measure
from infra.nano.network import new_model, start_as_bag, start_with_meanings, write
from infra.nano.prompts import CATEGORIES, SEVERITIES, first_tokens, make_tokenizer
from infra.nano.targets import make_targets

_TOKENIZER_CHARS = 1_000


@dataclass(frozen=True)
class Recipe:
    """All that decides what comes out, beside the texts and the seed."""

    bag_steps: int
    """So many of the steps, the first ones, train the network as a bag of tokens."""
    steps: int
    rate: float
    tokens: int
    """Padded positions a batch."""
    hidden: int
    layers: int
    teacher_share: float
    """How much of a labelled text's target is the teacher's opinion."""
    save_every_s: float = 30.0


def train(
    rows: list[Row], unlabelled: list[Text], recipe: Recipe, cache: Path, state: Path | None = None
) -> tuple[Qwen3ForCausalLM, Tokenizer]:
    """Train on `rows`; go on from `state` if it is there. The folder `cache` keeps the encoder's vectors."""
    torch.manual_seed(SEED)
    tokenizer = make_tokenizer([row["text"][:_TOKENIZER_CHARS] for row in rows] + [each.text for each in unlabelled])
    for words in (SEVERITIES, (*CATEGORIES, "None"), ("Yes", "No")):
        first_tokens(tokenizer, words)
    model = new_model(tokenizer.get_vocab_size(), recipe.hidden, recipe.layers)
    start_as_bag(model)
    start_with_meanings(model, word_vectors(tokenizer, recipe.hidden, cache))
    targets = make_targets(rows, unlabelled, cache, share=recipe.teacher_share)
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(rows)} texts, "
        f"{targets.is_disputed.mean():.1%} of them disputed"
    )
    plan = Plan(recipe.bag_steps, recipe.steps, recipe.rate, recipe.save_every_s, digest_of(recipe, rows, unlabelled))
    fit = Fit(model, first_tokens(tokenizer, SEVERITIES), plan, state)
    fit.run(Epochs(rows, targets, tokenizer, recipe.tokens))
    return model, tokenizer


def digest_of(recipe: Recipe, rows: list[Row], unlabelled: list[Text]) -> str:
    """Name a recipe and the texts that it is used on."""
    inputs = [asdict(recipe), rows, [asdict(each) for each in unlabelled]]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the recipe's settings, with those of the shipped checkpoint as defaults."""
    parser.add_argument("--cache", type=Path, default=Path(".nano-cache"), help="a folder for the encoder's vectors")
    parser.add_argument("--bag-steps", type=int, default=200)
    parser.add_argument("--steps", type=int, default=480)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--tokens", type=int, default=8192, help="padded positions a batch")
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument(
        "--teacher-share", type=float, default=0.5, help="0 teaches the labels alone, but for the corpus"
    )
    parser.add_argument("--threads", type=int, default=2)


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """Read the recipe's settings."""
    torch.set_num_threads(arguments.threads)
    return Recipe(
        bag_steps=arguments.bag_steps,
        steps=arguments.steps,
        rate=arguments.rate,
        tokens=arguments.tokens,
        hidden=arguments.hidden,
        layers=arguments.layers,
        teacher_share=arguments.teacher_share,
    )


def main() -> None:
    """Train, write hf/ and ct2/, and measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="gzipped JSON lines: text, safety, categories, …")
    parser.add_argument("--out", type=Path, required=True, help="the folder for hf/, ct2/ and figures.json")
    add_recipe(parser)
    arguments = parser.parse_args()
    rows, _ = hold_out_rows(read(arguments.data))
    arguments.out.mkdir(parents=True, exist_ok=True)
    state = arguments.out / "training.pt"
    model, tokenizer = train(rows, corpus(), recipe_of(arguments), arguments.cache, state)
    write(model, tokenizer, arguments.out / "hf")
    convert(arguments.out)
    measure(arguments.data, arguments.out)
    state.unlink()


if __name__ == "__main__":
    main()
