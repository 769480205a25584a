"""What the student is taught of each text: its label, doubted where models that never saw it disagree, and a teacher's
opinion.

The Controversial class is made as the Qwen3Guard report describes it: halves of the data, a strict and a loose model on
each, which annotate the other half; where the two disagree the text is controversial.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infra.nano.corpus import Text
from infra.nano.data import SEED, Row, balance_languages, is_harmful
from infra.nano.encoder import Floats, Teacher, Vectors, embed, without_language
from infra.nano.prompts import SEVERITIES

_STRICT, _LOOSE = 1.4, 0.7
"""How much a harmful text weighs for the strict and for the loose model."""
_CONTROVERSIAL_SHARE = 0.3
"""How much of a harmful opinion on a text without a harmful label is taught as Controversial, not as Unsafe."""
_CONTROVERSIAL_SHARE_OF_ABUSE = 0.5
_CORPUS_WEIGHT = 0.2
"""How much the corpus weighs in the teacher's head, half of it abuse, against 1 for all the labelled texts."""
_HARM_OF_ABUSE = 0.85
"""The least harm that is taught of a text with a word of the lexicon put into it."""


@dataclass(frozen=True)
class Targets:
    """The targets of the labelled texts, then of the corpus.

    `severities` has the shape (texts, 3), and each row sums to 1; `vectors` are the encoder's.
    """

    texts: list[str]
    severities: Floats
    vectors: Vectors
    is_disputed: npt.NDArray[np.bool_]


def make_targets(rows: list[Row], corpus: list[Text], cache: Path, *, share: float) -> Targets:
    """Make the targets of `rows` and of the corpus.

    `share` is the teacher's part of a labelled text's target; the folder `cache` keeps the encoder's vectors.
    """
    labels = np.eye(len(SEVERITIES))[[SEVERITIES.index(row["safety"]) for row in rows]]
    texts = [row["text"] for row in rows] + [each.text for each in corpus]
    vectors = without_language(
        embed(texts, cache), [row["lang"] for row in rows] + [each.lang for each in corpus], len(rows)
    )
    is_abusive = np.array([False] * len(rows) + [each.is_abusive for each in corpus])
    seen = vectors[: len(rows)]
    is_disputed = _disputed(rows, seen)
    labels[is_disputed] = 0.5 * labels[is_disputed] + 0.5 * np.eye(3)[1]
    harm = _opinion(rows, vectors, is_abusive)
    harm[is_abusive] = np.maximum(harm[is_abusive], _HARM_OF_ABUSE)
    controversial = np.where(is_abusive, _CONTROVERSIAL_SHARE_OF_ABUSE, _CONTROVERSIAL_SHARE)
    sides = np.column_stack([controversial, 1 - controversial])
    sides[: len(rows)][is_harmful(rows)] = labels[is_harmful(rows), 1:]
    severities = _even(harm, sides)
    severities[: len(rows)] = (1 - share) * labels + share * severities[: len(rows)]
    return Targets(texts, severities, vectors, is_disputed)


def _even(harm: Floats, sides: Floats) -> Floats:
    """Share `harm` out to Controversial and Unsafe; of even odds, Safe is as likely as the likelier of the two.

    The most likely severity is the answer: of a harm of 0.5, shared out plainly, Safe would be.
    """
    shares = harm[:, None] * sides / sides.max(axis=1, keepdims=True)
    whole = np.column_stack([1 - harm, shares])
    return np.asarray(whole / whole.sum(axis=1, keepdims=True))


def _opinion(rows: list[Row], vectors: Vectors, is_abusive: npt.NDArray[np.bool_]) -> Floats:
    """Give the teacher's opinion on all texts. It learns the labels, and that the corpus' abuse is harm."""
    weights = np.zeros(len(vectors))
    weights[: len(rows)] = balance_languages(rows) / len(rows)
    in_corpus = np.arange(len(vectors)) >= len(rows)
    for side in (in_corpus & is_abusive, in_corpus & ~is_abusive):
        weights[side] = _CORPUS_WEIGHT / 2 / max(side.sum(), 1)
    harmful = is_abusive.copy()
    harmful[: len(rows)] = is_harmful(rows)
    return Teacher(vectors, harmful, weights).harm(vectors)


def _disputed(rows: list[Row], seen: Vectors) -> npt.NDArray[np.bool_]:
    """Say on which texts a strict and a loose model disagree, each trained on the half without the text."""
    halves = np.random.default_rng(SEED).integers(0, 2, len(rows))
    disagree = np.zeros(len(rows), dtype=bool)
    for half in (0, 1):
        inside = halves == half
        others = [row for row, is_inside in zip(rows, inside, strict=True) if not is_inside]
        harmful = is_harmful(others)
        strict, loose = (
            Teacher(seen[~inside], harmful, balance_languages(others) * np.where(harmful, weight, 1.0)).harm(
                seen[inside]
            )
            > 0.5
            for weight in (_STRICT, _LOOSE)
        )
        disagree[inside] = strict != loose
    return disagree
