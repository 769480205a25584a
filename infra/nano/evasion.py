"""Ways in which people disguise a text, and habits of typing. Training shows some texts so, with their own label."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable

_LEET = str.maketrans("aeiostAEIOST", "431057431057")
_ZERO_WIDTH = "\u200b"
_LOWER, _UNMARKED, _UNACCENTED = 0.25, 0.25, 0.1
_MARKED, _SPACED = 0.3, 0.1
"""Few authored texts end with a full stop, and none with a space. Without these, models take both for signs of a
harmless text."""
_LAST_MARKS = "?.!\uff1f\u3002\uff01\u061f\u0964"


def disguise(text: str, rng: random.Random) -> str:
    """Disguise `text` in one way, drawn at random."""
    return rng.choice(_WAYS)(text, rng)


def plain_habit(text: str, rng: random.Random) -> str:
    """Write `text` as people type, by chance: in lower case, without a last mark, without accents, with a space."""
    if rng.random() < _LOWER:
        text = text.lower()
    if rng.random() < _UNMARKED:
        text = text.rstrip(_LAST_MARKS) or text
    elif text and rng.random() < _MARKED and not text.endswith(tuple(_LAST_MARKS)):
        text += _full_stop(text)
    if rng.random() < _UNACCENTED and text.isascii() is False:
        text = _without_accents(text)
    return f"{text} " if rng.random() < _SPACED else text


def _full_stop(text: str) -> str:
    """Give the full stop of the script in which `text` ends."""
    script = unicodedata.name(text[-1], "").split(" ")[0]
    if script in ("CJK", "HIRAGANA", "KATAKANA"):
        return "。"
    return "।" if script in ("DEVANAGARI", "BENGALI") else "."


def _without_accents(text: str) -> str:
    """Leave the accents of Latin letters out; other scripts need their marks."""
    out = []
    for letter in text:
        parts = unicodedata.normalize("NFD", letter)
        out.append(parts[0] if len(parts) > 1 and parts[0].isascii() else letter)
    return "".join(out)


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
