"""More unlabelled texts for the teacher to judge: parts of authored texts, joined and changed.

The student sees too few texts to learn a word in all its uses, and remembers texts instead. The teacher's encoder has
seen more: what it says of a mixture shows what each word adds to the others.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from infra.nano.authored import Authored
from infra.nano.data import SEED
from infra.nano.lessons import Kind, Lesson, Lessons

_LONGEST = 60
"""Pieces of a text that are used."""
_LEAST_REPLACED, _MOST_REPLACED = 0.15, 0.6
_LONGEST_PART = 8
_SHARES = (0.4, 0.4, 0.2)
"""The fractions of joined texts, of texts with replaced pieces, and of parts of texts."""


def mixtures(authored: list[Authored], cut: Callable[[str], list[str]], count: int) -> list[Lesson]:
    """Make at most `count` texts, the same each time: those of a language by the root of how many texts it has.

    `cut` cuts a text into pieces that are joined again to the text.
    """
    rng = random.Random(SEED)  # noqa: S311 - sampling, not a secret
    texts: dict[str, list[list[str]]] = defaultdict(list)
    for each in authored:
        texts[each.language].append(cut(each.turns[-1])[:_LONGEST])
    pieces = {lang: [piece for text in own for piece in text] for lang, own in texts.items()}
    langs = sorted(texts)
    drawn = rng.choices(langs, weights=[len(texts[lang]) ** 0.5 for lang in langs], k=count)
    ways = rng.choices((_joined, _replaced, _part), weights=_SHARES, k=count)
    made = [("".join(way(texts[lang], pieces[lang], rng)).strip(), lang) for lang, way in zip(drawn, ways, strict=True)]
    return [Lesson(Kind.MIXTURE, (text,), lang) for text, lang in dict.fromkeys(made) if text]


def with_mixtures(lessons: Lessons, mixed: list[Lesson]) -> Lessons:
    """Give the lessons with mixtures behind them, each drawn as often as another."""
    return replace(
        lessons,
        lessons=lessons.lessons + mixed,
        weights=np.concatenate([lessons.weights, np.ones(len(mixed))]),
        folds=np.concatenate([lessons.folds, np.zeros(len(mixed), dtype=np.int64)]),
    )


def _joined(texts: list[list[str]], _: list[str], rng: random.Random) -> list[str]:
    """Join the begin of one text and the end of another."""
    first, second = rng.choice(texts), rng.choice(texts)
    return first[: rng.randint(1, len(first))] + second[rng.randrange(len(second)) :]


def _replaced(texts: list[list[str]], pieces: list[str], rng: random.Random) -> list[str]:
    """Replace some pieces of a text by others of its language."""
    share = rng.uniform(_LEAST_REPLACED, _MOST_REPLACED)
    return [rng.choice(pieces) if rng.random() < share else piece for piece in rng.choice(texts)]


def _part(texts: list[list[str]], _: list[str], rng: random.Random) -> list[str]:
    """Cut a few pieces out of a text."""
    text = rng.choice(texts)
    begin = rng.randrange(len(text))
    return text[begin : begin + rng.randint(1, _LONGEST_PART)]
