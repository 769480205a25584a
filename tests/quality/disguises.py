"""Transformations that people use to hide words from filters; each keeps a text readable."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_WORD = re.compile(r"[^\W\d_]{2,}")


def _mapped(pairs: dict[str, str]) -> Callable[[str], str]:
    table = str.maketrans(pairs)
    return lambda text: text.translate(table)


def _styled(lower: int, upper: int) -> dict[str, str]:
    return {letter: chr(lower + index) for index, letter in enumerate(_LETTERS)} | {
        letter.upper(): chr(upper + index) for index, letter in enumerate(_LETTERS)
    }


def _between(mark: str) -> Callable[[str], str]:
    return lambda text: _WORD.sub(lambda match: mark.join(match[0]), text)


def _spaced(text: str) -> str:
    return "  ".join(" ".join(word) if _WORD.fullmatch(word) else word for word in text.split())


def _reversed(text: str) -> str:
    """Write each paragraph backwards between controls that show it forwards."""
    return "\n".join(f"\u202e{line[::-1]}\u202c" for line in text.split("\n"))


def _flags(text: str) -> str:
    """Write the letters of English as regional indicators, and keep them from becoming flags."""
    return _mapped({letter: f"{chr(0x1F1E6 + index)}\u200b" for index, letter in enumerate(_LETTERS)})(text.lower())


def _marked(mark: str) -> Callable[[str], str]:
    """Put each word's second letter between marks that a renderer takes away."""
    return lambda text: _WORD.sub(lambda match: f"{match[0][0]}{mark}{match[0][1]}{mark}{match[0][2:]}", text)


def _some_words(disguise: Callable[[str], str]) -> Callable[[str], str]:
    """Disguise a third of the words, at least one: what a person who hides a word does."""

    def some(text: str) -> str:
        words = text.split(" ")
        rng = random.Random(text)
        for index in rng.sample(range(len(words)), max(1, len(words) // 3)):
            words[index] = disguise(words[index])
        return " ".join(words)

    return some


_CYRILLIC = dict(zip("aceopxyisjABCEHKMOPTXY", "асеорхуіѕјАВСЕНКМОРТХУ", strict=True))
_LEET = dict(zip("aeiostAEIOST", "431057431057", strict=True))

DISGUISES: dict[str, Callable[[str], str]] = {
    "zero-width spaces": _between("\u200b"),
    "soft hyphens": _between("\u00ad"),
    "direction controls": lambda text: _WORD.sub(lambda match: f"\u202d{match[0]}\u202c", text),
    "full-width letters": _mapped(_styled(0xFF41, 0xFF21)),
    "mathematical bold": _mapped(_styled(0x1D41A, 0x1D400)),
    "circled letters": _mapped(_styled(0x24D0, 0x24B6)),
    "Cyrillic look-alikes": _mapped(_CYRILLIC),
    "struck out": lambda text: _WORD.sub(lambda match: "\u0336".join(match[0]) + "\u0336", text),
    "spaced out": _spaced,
    "spaced out by no-break spaces": lambda text: _spaced(text).replace(" ", "\u00a0"),
    "a letter a line": lambda text: "\r\n\r\n".join("\r\n".join(word) for word in text.split()),
    "dotted": _between("."),
    "bullets": _between(" \u2022 "),
    "written backwards, shown forwards": _reversed,
    "a third of the words backwards": lambda text: _some_words(lambda word: f"\u202e{word[::-1]}\u202c")(text),
    "bold letters inside words": _marked("**"),
    "spoilers inside words": _marked("||"),
    "regional indicators": _flags,
    "digits for letters": _mapped(_LEET),
    "a third of the words dotted": _some_words(_between(".")),
    "a third of the words in digits": _some_words(_mapped(_LEET)),
    "look-alikes and zero-width spaces": lambda text: _between("\u200b")(_mapped(_CYRILLIC)(text)),
    "accents (not undone)": _mapped(dict(zip("aeiouyAEIOUY", "äëïöüÿÄËÏÖÜŸ", strict=True))),
}
