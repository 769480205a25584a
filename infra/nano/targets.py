"""What the student is taught of each text: its labels, softened by a teacher's opinion, and the encoder's vector.

A text whose label is doubted by models that never saw it becomes Controversial by half, as the Qwen3Guard report makes
that class: a strict and a loose model on each half of the data annotate the other half, and disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.nano.data import SEED
from infra.nano.e5 import Floats
from infra.nano.lessons import Kind, Lessons
from infra.nano.prompts import CATEGORIES, SEVERITIES
from infra.nano.teacher import WIDTH, Directions, Heads, Labels, directions, opinions

_SMOOTHING = 0.02
"""What a label gives to each severity or category that it does not name."""
_DATA_WEIGHT = 0.2
"""How much a text of the data weighs for the teacher, against 1 for an authored one."""
_STRICT, _LOOSE = 1.4, 0.7
"""How much a harmful text weighs for the strict and for the loose model."""
_HARM_OF_ABUSE = 0.85
"""The least harm that is taught of a text with a word of the lexicon, half of it Controversial."""


@dataclass(frozen=True)
class Targets:
    """The targets of all lessons.

    `severities` has the shape (texts, 3) and `categories` (texts, 9); each row sums to 1. `vectors` has the shape
    (texts, WIDTH).
    """

    severities: Floats
    categories: Floats
    vectors: Floats
    is_disputed: npt.NDArray[np.bool_]
    directions: Directions


def make_targets(lessons: Lessons, features: npt.NDArray[np.float16], share: float) -> Targets:
    """Make the targets of `lessons`, whose features the encoder gave. `share` is the teacher's part of a label."""
    every = lessons.lessons
    severities = np.array([each.severity for each in every])
    categories = np.array([each.category for each in every])
    is_data = np.array([each.kind is Kind.DATA for each in every])
    is_abusive = np.array([each.is_abusive for each in every])
    labelled = severities >= 0
    # The corpus is of random words: the directions are those of texts that people wrote.
    turned = directions(features[labelled])
    vectors = turned.of(features)
    labels = Labels(severities, categories, np.where(is_data, _DATA_WEIGHT * lessons.weights, 1.0).astype(np.float32))
    own, others = opinions(vectors[labelled], labels.at(labelled), lessons.folds[labelled], vectors[~labelled])
    said = np.zeros((len(every), len(SEVERITIES)), dtype=np.float32)
    asked = np.zeros((len(every), len(CATEGORIES)), dtype=np.float32)
    said[labelled], asked[labelled] = own.severities, own.categories
    said[~labelled], asked[~labelled] = others.severities, others.categories
    is_disputed = np.zeros(len(every), dtype=bool)
    is_disputed[is_data] = _disputed(vectors[is_data], labels.at(is_data))
    sure = _smooth(severities, len(SEVERITIES))
    sure[is_disputed] = 0.5 * sure[is_disputed] + 0.5 * np.eye(3, dtype=np.float32)[1]
    said[labelled] = (1 - share) * sure[labelled] + share * said[labelled]
    named = categories >= 0
    asked[named] = (1 - share) * _smooth(categories[named], len(CATEGORIES)) + share * asked[named]
    said[is_abusive] = _at_least(said[is_abusive], _HARM_OF_ABUSE)
    return Targets(said, asked, vectors[:, :WIDTH], is_disputed, turned)


def _smooth(numbers: npt.NDArray[np.int64], count: int) -> Floats:
    """Give a label nearly all, and each other one a little; of no label, the row means nothing."""
    out = np.full((len(numbers), count), _SMOOTHING, dtype=np.float32)
    out[np.arange(len(numbers)), numbers] = 1 - _SMOOTHING * (count - 1)
    return out


def _at_least(severities: Floats, harm: float) -> Floats:
    """Raise the harm, both halves alike, where it is lower."""
    safe = np.minimum(severities[:, 0], 1 - harm)
    sides = severities[:, 1:] + 1e-3
    sides = 0.5 * sides / sides.sum(axis=1, keepdims=True) + 0.25
    return np.column_stack([safe, (1 - safe)[:, None] * sides]).astype(np.float32)


def _disputed(vectors: Floats, labels: Labels) -> npt.NDArray[np.bool_]:
    """Say on which texts a strict and a loose model disagree, each trained on the half without the text."""
    halves = np.random.default_rng(SEED).integers(0, 2, len(vectors))
    disagree = np.zeros(len(vectors), dtype=bool)
    for half in (0, 1):
        inside = halves == half
        own = labels.at(~inside)
        strict, loose = (
            Heads(
                vectors[~inside],
                Labels(own.severities, own.categories, np.where(own.severities > 0, weight, 1.0) * own.weights),
                SEED,
            )
            .judge(vectors[inside])
            .severities.argmax(axis=1)
            > 0
            for weight in (_STRICT, _LOOSE)
        )
        disagree[inside] = strict != loose
    return disagree
