"""The texts that the student learns from, in one form: authored texts, the labelled data, and the unlabelled corpus."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from infra.nano.authored import Authored
from infra.nano.corpus import Text
from infra.nano.data import Row, balance_languages
from infra.nano.prompts import CATEGORIES, SEVERITIES
from infra.nano.teacher import FOLDS

_LONGEST = 400
"""Characters of a text of the data: jailbreak prompts run to thousands, and say the same all along."""
_ROWS = 30_000
"""So many texts of the data are drawn, by their weights: more of them teach little more."""
_ABUSE_WEIGHT = 0.5
"""How often a text of the corpus with a word of the lexicon is drawn, against 1 for another one."""
_TURNS_WEIGHT = 2.0
"""How much more often a text with earlier turns or a response is drawn: there are few."""


class Kind(StrEnum):
    """Where a lesson comes from."""

    AUTHORED = "authored"
    DATA = "data"
    CORPUS = "corpus"
    MIXTURE = "mixture"


@dataclass(frozen=True)
class Lesson:
    """A text with what is known of it; `severity` and `category` are numbers, -1 for none."""

    kind: Kind
    turns: tuple[str, ...]
    lang: str
    severity: int = -1
    category: int = -1
    refusal: str | None = None
    is_abusive: bool = False
    """A word of the lexicon is in it."""

    @property
    def marked(self) -> str:
        """The text as the encoder reads it: turns in one line, each with its speaker."""
        if len(self.turns) == 1:
            return self.turns[0]
        return " // ".join(f"{'UA'[number % 2]}: {turn}" for number, turn in enumerate(self.turns))


@dataclass(frozen=True)
class Lessons:
    """All lessons, with the weight by which each is drawn within its kind, and the fold of the teacher's heads."""

    lessons: list[Lesson]
    weights: npt.NDArray[np.float64]
    folds: npt.NDArray[np.int64]

    def of(self, kind: Kind) -> npt.NDArray[np.int64]:
        """Give the numbers of the lessons of a kind."""
        return np.array([number for number, each in enumerate(self.lessons) if each.kind is kind], dtype=np.int64)


def gather(authored: list[Authored], rows: list[Row], corpus: list[Text]) -> Lessons:
    """Put all texts in one list. A seed is in one fold, so that no head judges another rendering of what it learnt."""
    rows = sampled(rows)
    lessons = [_of_authored(each) for each in authored]
    lessons += [_of_row(row) for row in rows]
    lessons += [Lesson(Kind.CORPUS, (each.text,), each.lang, is_abusive=each.is_abusive) for each in corpus]
    weights = [
        *_even_languages(authored),
        *balance_languages(rows),
        *(_ABUSE_WEIGHT if each.is_abusive else 1.0 for each in corpus),
    ]
    folds = [int(each.seed[1:]) % FOLDS for each in authored] + [number % FOLDS for number in range(len(rows))]
    return Lessons(lessons, np.array(weights), np.array(folds + [0] * len(corpus)))


def sampled(rows: list[Row]) -> list[Row]:
    """Draw texts of the data by their weights. A text's luck is its own, so that a part of the data draws the same."""
    luck = [int(hashlib.md5(row["text"].encode(), usedforsecurity=False).hexdigest()[:8], 16) for row in rows]
    keys = (np.array(luck) + 1.0) / 2**32
    order = np.argsort(-(keys ** (1 / balance_languages(rows))), kind="stable")
    return [rows[number] for number in order[:_ROWS]]


def _of_authored(each: Authored) -> Lesson:
    category = -1 if each.category is None else CATEGORIES.index(each.category)
    return Lesson(Kind.AUTHORED, each.turns, each.language, SEVERITIES.index(each.severity), category, each.refusal)


def _of_row(row: Row) -> Lesson:
    # One primary category for each text, as in Qwen3Guard's training.
    category = next((number for number, name in enumerate(CATEGORIES) if name in row["categories"]), -1)
    return Lesson(Kind.DATA, (row["text"][:_LONGEST],), row["lang"], SEVERITIES.index(row["safety"]), category)


def _even_languages(authored: list[Authored]) -> list[float]:
    """Give each authored text's weight: a language, and each side of it, counts by the root of its size."""
    sides = [(each.language, each.category is None) for each in authored]
    counts = Counter(sides)
    return [
        counts[side] ** -0.5 * (_TURNS_WEIGHT if len(each.turns) > 1 else 1.0)
        for each, side in zip(authored, sides, strict=True)
    ]
