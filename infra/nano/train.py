"""Trains guard-nano: `python -m infra.nano.train --data TEXTS.jsonl.gz --out FOLDER`. Seeded; see CARD.md.

A kill costs about a minute: the same command goes on from FOLDER/training.pt.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import Qwen3ForCausalLM

from infra.nano.authored import Authored, Part
from infra.nano.authored import read as read_authored
from infra.nano.batches import Epochs
from infra.nano.convert import convert
from infra.nano.corpus import Text, corpus
from infra.nano.data import SEED, Row, hold_out_rows, read
from infra.nano.e5 import E5, Floats
from infra.nano.features import features_of
from infra.nano.fit import Fit, Plan
from infra.nano.lessons import Kind, Lessons, gather
from infra.nano.measure import measure
from infra.nano.mixtures import mixtures, with_mixtures
from infra.nano.network import new_model, start_as_bag, start_with_meanings, write
from infra.nano.prompts import labels_of
from infra.nano.targets import Targets, make_targets
from infra.nano.vocabulary import vocabulary

_RIDGE = 1e-3


@dataclass(frozen=True)
class Recipe:
    """All that decides what comes out, beside the texts."""

    stages: tuple[int, ...]
    """The number of steps after which each stage ends: the bag of tokens, the whole network, the whole answers."""
    rate: float
    batch: int
    """Texts a step."""
    hidden: int
    layers: int
    teacher_share: float
    """How much of a labelled text's target is the teacher's opinion."""
    mixtures: int
    """Texts made of parts of the others."""
    seed: int = SEED
    save_every_s: float = 60.0


@dataclass(frozen=True)
class Texts:
    """What a model is trained on."""

    authored: list[Authored]
    rows: list[Row]
    corpus: list[Text]


def train(
    texts: Texts, recipe: Recipe, cache: Path, state: Path | None = None, device: str = "cpu"
) -> tuple[Qwen3ForCausalLM, Tokenizer]:
    """Train on `texts`; go on from `state` if it is there. The folder `cache` keeps the encoder's features."""
    encoder = E5(device=device)
    lessons = gather(texts.authored, texts.rows, texts.corpus)
    tokenizer = vocabulary(lessons, encoder)
    lessons = with_mixtures(lessons, mixtures(texts.authored, encoder.cut, recipe.mixtures))
    features = features_of([each.marked for each in lessons.lessons], encoder, cache)
    targets = make_targets(lessons, features, recipe.teacher_share)
    torch.manual_seed(recipe.seed)
    model = new_model(tokenizer.get_vocab_size(), recipe.hidden, recipe.layers)
    start_as_bag(model)
    start_with_meanings(model, meanings(tokenizer, encoder, lessons, targets, recipe.hidden))
    model.to(device)
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {len(texts.authored)} authored texts, "
        f"{len(lessons.of(Kind.DATA))} of the data, {targets.is_disputed.sum()} of these disputed"
    )
    plan = Plan(recipe.stages, recipe.rate, recipe.save_every_s, digest_of(recipe, texts))
    fit = Fit(model, labels_of(tokenizer), plan, state)
    fit.run(Epochs(lessons, targets, tokenizer, recipe.batch, recipe.seed))
    return model.to("cpu"), tokenizer


def meanings(tokenizer: Tokenizer, encoder: E5, lessons: Lessons, targets: Targets, width: int) -> Floats:
    """Give each token a start of `width` numbers, shape (tokens, width): what it adds to the vector of a text.

    It is found by a linear model from the encoder's own pieces to the vectors of the authored texts.
    """
    numbers = lessons.of(Kind.AUTHORED)
    pieces = encoder.means([lessons.lessons[number].marked for number in numbers])
    vectors = targets.vectors[numbers][:, :width]
    mean = pieces.mean(axis=0)
    centred = pieces - mean
    squares = centred.T @ centred
    squares += _RIDGE * np.trace(squares) / len(squares) * np.eye(len(squares))
    turn = np.linalg.solve(squares, centred.T @ (vectors - vectors.mean(axis=0)))
    words = [tokenizer.decode([token]).strip() or "." for token in range(tokenizer.get_vocab_size())]
    added = (encoder.means(words) - mean) @ turn
    added -= added.mean(axis=0)
    lengths = np.linalg.norm(added, axis=1, keepdims=True)
    return np.asarray(added / np.maximum(lengths, 1e-6) * np.sqrt(width), dtype=np.float32)


def digest_of(recipe: Recipe, texts: Texts, code: Path = Path(__file__).parent) -> str:
    """Name a recipe, the texts that it is used on, and the code: a part of the recipe is its constants."""
    inputs = [
        [path.read_text(encoding="utf-8") for path in sorted(code.glob("*.py"))],
        asdict(recipe),
        [each.model_dump(mode="json") for each in texts.authored],
        texts.rows,
        [asdict(each) for each in texts.corpus],
    ]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the recipe's settings, with those of the shipped checkpoint as defaults."""
    parser.add_argument("--cache", type=Path, default=Path(".nano-cache"), help="a folder for the encoder's features")
    parser.add_argument(
        "--stages", type=int, nargs="+", default=[1_200, 2_300, 3_850, 3_970], help="steps at their ends"
    )
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--batch", type=int, default=96, help="texts a step")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--teacher-share", type=float, default=0.5, help="0 teaches the labels alone")
    parser.add_argument("--mixtures", type=int, default=60_000, help="texts made of parts of the others")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """Read the recipe's settings."""
    torch.set_num_threads(arguments.threads)
    return Recipe(
        stages=tuple(arguments.stages),
        rate=arguments.rate,
        batch=arguments.batch,
        hidden=arguments.hidden,
        layers=arguments.layers,
        teacher_share=arguments.teacher_share,
        mixtures=arguments.mixtures,
        seed=arguments.seed,
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
    texts = Texts(read_authored(Part.TRAINING), rows, corpus())
    model, tokenizer = train(texts, recipe_of(arguments), arguments.cache, state, arguments.device)
    write(model, tokenizer, arguments.out / "hf")
    convert(arguments.out)
    measure(arguments.data, arguments.out)
    state.unlink()


if __name__ == "__main__":
    main()
