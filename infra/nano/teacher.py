"""The teacher: small heads on the encoder's features say a text's severity and category. It is never shipped.

Its opinions teach the student more than the labels do: how near a text is to the border, and which other category it
touches. A text's opinion comes from heads that were not trained on the text's seed or, of other data, on its third.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from infra.nano.e5 import Floats
from infra.nano.prompts import CATEGORIES, SEVERITIES

WIDTH = 256
"""The main directions of the features that the student learns to give."""
_READ = 768
"""The main directions that the heads read."""
_POWER = 0.35
"""By this power of its variance each direction is divided: 0.5 would make all directions equally large."""
_HIDDEN = 256
_EPOCHS, _BATCH, _RATE, _DECAY = 12, 256, 2e-3, 0.05
_LEAST_STEPS = 20
"""Of an epoch: batches of few texts are smaller."""
_DROPPED_INPUTS, _DROPPED_HIDDEN = 0.2, 0.4
_SMOOTHING = 0.05
_CATEGORY_WEIGHT = 0.5
FOLDS = 3


@dataclass(frozen=True)
class Directions:
    """The main directions of the features of some texts."""

    mean: Floats
    spread: Floats
    turn: Floats
    """Shape (features, directions)."""

    def of(self, features: npt.NDArray[np.float16]) -> Floats:
        """Give the features in these directions, shape (texts, directions), the largest first."""
        return np.asarray(((features.astype(np.float32) - self.mean) / self.spread) @ self.turn, dtype=np.float32)


def directions(features: npt.NDArray[np.float16]) -> Directions:
    """Find the main directions of `features`."""
    whole = features.astype(np.float32)
    mean, spread = whole.mean(axis=0), whole.std(axis=0) + 1e-6
    whole = (whole - mean) / spread
    variances, vectors = np.linalg.eigh(whole.T @ whole / len(whole))
    kept = np.argsort(-variances)[: min(_READ, len(variances))]
    turn = vectors[:, kept] / np.maximum(variances[kept], 1e-6) ** _POWER
    return Directions(mean, spread, (turn / (whole @ turn).std()).astype(np.float32))


@dataclass(frozen=True)
class Labels:
    """What heads are trained on: numbers of severities and categories, -1 for none, and each text's weight."""

    severities: npt.NDArray[np.int64]
    categories: npt.NDArray[np.int64]
    weights: Floats

    def at(self, kept: npt.NDArray[np.bool_]) -> Labels:
        """Give those of some texts."""
        return Labels(self.severities[kept], self.categories[kept], self.weights[kept])


@dataclass(frozen=True)
class Opinions:
    """Probabilities of the severities, shape (texts, 3), and of the categories of a harmful text, shape (texts, 9)."""

    severities: Floats
    categories: Floats


class Heads:
    """A network of one hidden layer on vectors of `directions`."""

    def __init__(self, vectors: Floats, labels: Labels, seed: int) -> None:
        torch.manual_seed(seed)
        self._network = torch.nn.Sequential(
            torch.nn.Dropout(_DROPPED_INPUTS),
            torch.nn.Linear(vectors.shape[1], _HIDDEN),
            torch.nn.GELU(),
            torch.nn.Dropout(_DROPPED_HIDDEN),
            torch.nn.Linear(_HIDDEN, len(SEVERITIES) + len(CATEGORIES)),
        )
        self._train(torch.from_numpy(vectors), labels)

    def _train(self, vectors: torch.Tensor, labels: Labels) -> None:
        optimizer = torch.optim.AdamW(self._network.parameters(), lr=_RATE, weight_decay=_DECAY)
        severities, categories = torch.from_numpy(labels.severities), torch.from_numpy(labels.categories)
        weights = torch.from_numpy(labels.weights.astype(np.float32))
        size = min(_BATCH, len(vectors) // _LEAST_STEPS)
        steps = _EPOCHS * (len(vectors) // size)
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 30) * (1 - step / steps))
        for _ in range(_EPOCHS):
            for batch in torch.randperm(len(vectors)).split(size)[: len(vectors) // size]:
                said = self._network(vectors[batch])
                loss = (_cross_entropy(said[:, : len(SEVERITIES)], severities[batch]) * weights[batch]).mean()
                has_one = categories[batch] >= 0
                if has_one.any():
                    asked = said[has_one, len(SEVERITIES) :]
                    each = _cross_entropy(asked, categories[batch][has_one]) * weights[batch][has_one]
                    loss = loss + _CATEGORY_WEIGHT * each.mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                rate.step()
        self._network.eval()

    def judge(self, vectors: Floats) -> Opinions:
        """Judge texts by their vectors."""
        with torch.no_grad():
            said = self._network(torch.from_numpy(vectors))
        severities, categories = said.split([len(SEVERITIES), len(CATEGORIES)], dim=1)
        return Opinions(torch.softmax(severities, 1).numpy(), torch.softmax(categories, 1).numpy())


def opinions(
    vectors: Floats, labels: Labels, folds: npt.NDArray[np.int64], unlabelled: Floats
) -> tuple[Opinions, Opinions]:
    """Judge each labelled text by heads that its fold, 0 to FOLDS - 1, did not train; others by the mean of all."""
    severities = np.zeros((len(vectors), len(SEVERITIES)), dtype=np.float32)
    categories = np.zeros((len(vectors), len(CATEGORIES)), dtype=np.float32)
    others = []
    for fold in range(FOLDS):
        inside = folds == fold
        heads = Heads(vectors[~inside], labels.at(~inside), fold)
        judged = heads.judge(vectors[inside])
        severities[inside], categories[inside] = judged.severities, judged.categories
        others.append(heads.judge(unlabelled))
    mean = Opinions(
        np.mean([each.severities for each in others], axis=0), np.mean([each.categories for each in others], axis=0)
    )
    return Opinions(severities, categories), mean


def _cross_entropy(said: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(said, labels, reduction="none", label_smoothing=_SMOOTHING)
