"""A linear model on character and word n-grams: the baseline for guard-nano."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import SGDClassifier

from infra.nano.data import SEED, Row, balance, is_harmful

Floats = npt.NDArray[np.float64]
_LONGEST = 1_000
"""Characters of a text that are read: jailbreak prompts run to thousands, and say the same all along."""


class Ngrams:
    """The n-grams of the training texts, by tf-idf: characters within words, words and pairs of words."""

    def __init__(self, rows: list[Row]) -> None:
        self._vectorizers = (
            TfidfVectorizer(
                analyzer="char_wb",
                ngram_range=(2, 5),
                min_df=3,
                max_features=300_000,
                sublinear_tf=True,
                dtype=np.float32,
            ),
            TfidfVectorizer(ngram_range=(1, 2), min_df=2, max_features=150_000, sublinear_tf=True, dtype=np.float32),
        )
        for vectorizer in self._vectorizers:
            vectorizer.fit(_heads(rows))

    def of(self, rows: list[Row]) -> Any:
        """Give the sparse matrix (rows, n-grams)."""
        return scipy.sparse.hstack([each.transform(_heads(rows)) for each in self._vectorizers]).tocsr()


def predict(seen: Any, rows: list[Row], asked: Any) -> Floats:
    """Learn from the n-grams `seen` of labelled `rows`; give the probability of harm of each text `asked`."""
    model = SGDClassifier(loss="log_loss", alpha=3e-6, max_iter=12, tol=None, random_state=SEED)
    model.fit(seen, is_harmful(rows), sample_weight=balance(rows))
    return np.asarray(model.predict_proba(asked)[:, 1], dtype=np.float64)


def _heads(rows: list[Row]) -> list[str]:
    return [row["text"][:_LONGEST] for row in rows]
