"""Makes the tokenizer: from the texts, and from the frequent words that the encoder's tokenizer has."""

from __future__ import annotations

import random
import unicodedata

from tokenizers import Tokenizer

from infra.nano.data import SEED
from infra.nano.e5 import E5, WORD_BEGINS
from infra.nano.lessons import Kind, Lessons
from infra.nano.prompts import make_tokenizer

_CHARS = 300
"""Characters of a text of the data that are read."""
_DATA_SHARE = 0.7
_WORDS, _WORD_REPEATS = 70_000, 4
"""So many of the encoder's pieces, the most frequent ones, each as often as if it were in so many texts."""
_SCRIPTS = (
    *("LATIN", "CYRILLIC", "ARABIC", "DEVANAGARI", "CJK", "HIRAGANA", "KATAKANA", "HANGUL", "THAI", "BENGALI"),
    *("GREEK", "HEBREW"),
)
_FIRST_IDEOGRAPH = "\u2e80"


def vocabulary(lessons: Lessons, encoder: E5) -> Tokenizer:
    """Train the tokenizer. Authored texts count twice, and once more in lower case."""
    rng = random.Random(SEED)  # noqa: S311 - sampling, not a secret
    texts = []
    for lesson in lessons.lessons:
        if lesson.kind is Kind.AUTHORED:
            texts += [f" {turn}" for turn in lesson.turns] * 2
            texts += [f" {turn.lower()}" for turn in lesson.turns]
        elif rng.random() < _DATA_SHARE:
            texts.append(f" {lesson.turns[0][:_CHARS]}")
    return make_tokenizer(texts + words(encoder.pieces()) * _WORD_REPEATS)


def words(pieces: list[tuple[str, float]]) -> list[str]:
    """Give whole words of the languages' scripts, each behind a space, and parts of those written without spaces."""
    frequent = sorted(pieces, key=lambda piece: -piece[1])
    readable = [piece.replace(WORD_BEGINS, " ") for piece, _ in frequent if not piece.startswith("<")]
    known = [piece for piece in readable if len(piece.strip()) > 1 and _is_of_scripts(piece)][:_WORDS]
    return [piece for piece in known if piece.startswith(" ") or any(letter > _FIRST_IDEOGRAPH for letter in piece)]


def _is_of_scripts(piece: str) -> bool:
    letters = [letter for letter in piece if letter.isalpha() or unicodedata.category(letter).startswith("M")]
    return all(unicodedata.name(letter, "").startswith(_SCRIPTS) for letter in letters)
