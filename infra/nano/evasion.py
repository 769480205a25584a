"""Ways in which people disguise a text. Training shows some texts disguised, with their own label."""

from __future__ import annotations

import random
from collections.abc import Callable

_LEET = str.maketrans("aeiostAEIOST", "431057431057")
_ZERO_WIDTH = "\u200b"


def disguise(text: str, rng: random.Random) -> str:
    """Disguise `text` in one way, drawn at random."""
    return rng.choice(_WAYS)(text, rng)


def _leet(text: str, _: random.Random) -> str:
    return text.translate(_LEET)


def _upper(text: str, _: random.Random) -> str:
    return text.upper()


def _spaced(text: str, rng: random.Random) -> str:
    """Spread the letters of one longer word."""
    return _one_word(text, rng, " ".join)


def _zero_width(text: str, rng: random.Random) -> str:
    return _one_word(text, rng, _ZERO_WIDTH.join)


def _stretched(text: str, rng: random.Random) -> str:
    """Repeat one letter within a word."""

    def stretch(word: str) -> str:
        at = rng.randrange(len(word))
        return word[:at] + word[at] * rng.randint(2, 4) + word[at:]

    return _one_word(text, rng, stretch)


def _swapped(text: str, rng: random.Random) -> str:
    """Swap two neighbouring letters, as a slip of the finger does."""

    def swap(word: str) -> str:
        at = rng.randrange(len(word) - 1)
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return _one_word(text, rng, swap)


def _one_word(text: str, rng: random.Random, change: Callable[[str], str]) -> str:
    """Change one word of four letters or more; a text without one stays as it is."""
    words = text.split(" ")
    long = [number for number, word in enumerate(words) if len(word) > 3]
    if long:
        at = rng.choice(long)
        words[at] = change(words[at])
    return " ".join(words)


_WAYS = (_leet, _upper, _spaced, _zero_width, _stretched, _swapped)
