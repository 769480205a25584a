"""A training of seconds: `python -m tests.unit.infra_nano.tiny_training STATE`; prints the digest of its weights."""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path

import torch
from safetensors.torch import save

from infra.nano.authored import Authored
from infra.nano.corpus import Text
from infra.nano.data import Row
from infra.nano.train import Recipe, Texts, train

RECIPE = Recipe(
    stages=(10, 20, 30), rate=2e-3, batch=16, hidden=64, layers=1, teacher_share=0.5, mixtures=40, save_every_s=0
)
_WORDS = {"Safe": "tea garden river music bread", "Unsafe": "bomb poison knife steal kill"}


def rows() -> list[Row]:
    """Make texts of five sources and two kinds."""
    rng = random.Random(1)
    return [
        Row(
            text=" ".join(rng.choices(_WORDS[safety].split(), k=8)),
            safety=safety,
            categories=[] if safety == "Safe" else ["Violent"],
            lang="en",
            source=f"source-{number % 5}",
        )
        for number in range(200)
        for safety in _WORDS
    ]


def authored() -> list[Authored]:
    """Make single texts, conversations and responses of two kinds."""
    rng = random.Random(2)
    out = []
    for number in range(120):
        severity = ("Safe", "Unsafe")[number % 2]
        turns = [" ".join(rng.choices(_WORDS[severity].split(), k=4)) for _ in range(1 + number % 3)]
        line = {
            "seed": f"a{number:05d}",
            "language": ("en", "de")[number % 5 == 0],
            "turns": turns,
            "severity": severity,
            "category": None if severity == "Safe" else "Violent",
            "beside": None,
            "register": "chat",
            "habit": None,
            "refusal": None if len(turns) % 2 else ("Yes", "No")[number % 2],
        }
        out.append(Authored.model_validate(line))
    return out


def unlabelled() -> list[Text]:
    """Make a corpus of two texts, one of them abusive."""
    return [Text("a quiet garden", "en", is_abusive=False), Text("you worthless knife", "en", is_abusive=True)]


def texts() -> Texts:
    """Give all of them."""
    return Texts(authored(), rows(), unlabelled())


def main() -> None:
    """Train, or go on."""
    torch.set_num_threads(1)
    model, _ = train(texts(), RECIPE, Path(sys.argv[1]).parent / "cache", Path(sys.argv[1]))
    print(hashlib.sha256(save(dict(model.model.state_dict()))).hexdigest())


if __name__ == "__main__":
    main()
