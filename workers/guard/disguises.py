"""The rules by which a disguised text is read: each is a function of the text, and leaves ordinary writing as it is."""

from __future__ import annotations

import re
from collections import Counter

import regex
from bidi import get_base_level, get_display

from workers.guard.letters import LINE_ENDS, SPACES

_DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
_PARAGRAPH_END = re.compile("([\n\r\x1c-\x1e\x85\u2029]+)")

# Marks that composed with nothing: no alphabet here stacks them, and a struck-out word is made of them.
_STRAY_MARKS = regex.compile(r"(?<=[\p{Latin}\p{Cyrillic}\p{Greek}])[\p{Mn}\p{Me}]+")

FLAG_LETTERS = "".join(map(chr, range(0x1F1E6, 0x1F200)))
"""Regional indicators, A to Z: two of them are shown as a flag where the pair is a region's code."""
_FLAGS = re.compile(f"[{FLAG_LETTERS[0]}-{FLAG_LETTERS[-1]}]+")
_REGION_CODES = """
A:CDEFGILMOQRSTUWXZ B:ABDEFGHIJLMNOQRSTVWYZ C:ACDFGHIKLMNOPQRUVWXYZ D:EGJKMOZ E:ACEGHRSTU F:IJKMOR
G:ABDEFGHILMNPQRSTUWY H:KMNRTU I:CDELMNOQRST J:EMOP K:EGHIMNPRWYZ L:ABCIKRSTUVY M:ACDEFGHKLMNOPQRSTUVWXYZ
N:ACEFGILOPRUZ O:M P:AEFGHKLMNRSTWY Q:A R:EOSUW S:ABCDEGHIJKLMNORSTVXYZ T:ACDFGHJKLMNORTVWZ U:AGMNSYZ V:ACEGINU
W:FS X:K Y:ET Z:AMW
"""
"""ISO 3166-1's codes, and the further ones that have a flag in Unicode's list of emoji, by their first letter."""
_REGIONS = frozenset(line[0] + second for line in _REGION_CODES.split() for second in line[2:])

# A mark between a letter and the next one. Possessive: a megabyte of asterisks takes as long as a megabyte of prose.
_MARK_INSIDE = re.compile(r"(?<=[^\W\d_])(?:[*`]|__|~~|\|\|)[*_~|`]*+(?=[^\W_])")
_MARK_SIGN = re.compile(r"[*_~|`]")
_MARKED_WORD = re.compile(r"(?:[^\W_]|[*_~|`])+")
_MARKS = re.compile(r"\*\*|__|~~|\|\||`|\*")

BULLETS = "·‐‑‒–—―…⸱・･"
"""Signs outside of ASCII that stand between letters, beside all of Unicode's symbols (class So)."""
_SPACE = f"[{SPACES}{LINE_ENDS}]"
_SIGN = rf"[{SPACES}{re.escape('._*-/~+=#^')}\\{BULLETS}‣•‧∙⋅❤♥\ufe0f\p{{So}}]"
_LETTERS = r"\p{Latin}\p{Cyrillic}\p{Greek}"  # In other scripts one letter is often a word.
_LETTER, _INNER = f"[{_LETTERS}]", f"[{_LETTERS}013457@$]"
_BEFORE, _BEHIND = r"(?<![\p{L}\p{N}])", r"(?![\p{L}\p{N}])"
# Between any two letters as many spaces, whichever they are; or the same signs.
_EVEN = "|".join(f"(?:{gap}{_INNER})+{gap}{_LETTER}" for gap in (_SPACE, f"{_SPACE}{{2}}", f"{_SPACE}{{3}}"))
_SPACED_OUT = regex.compile(
    rf"{_BEFORE}{_LETTER}(?:{_EVEN}|(?P<gap>{_SIGN}{{1,3}}|[!|]{{1,2}})(?:{_INNER}(?P=gap))+{_LETTER}){_BEHIND}"
)
_SPACED_PAIR = regex.compile(rf"{_BEFORE}{_LETTER}(?:{_SPACE}{{1,2}}|{_SIGN}|[!|]){_LETTER}{_BEHIND}")
_BETWEEN = regex.compile(rf"[^{_LETTERS}013457@$]+")
_SPACES = re.compile(f"[{SPACES}]{{2,}}")

LEET = str.maketrans("013457@$!|", "oieastasil")
"""Digits and signs for letters."""
# Whole words: parts of addresses and of names behind an @ are left alone. No pattern here goes back over what it has
# read: a megabyte of one letter takes as long as a megabyte of prose.
_LEET_WORD = regex.compile(r"(?<![./:@\w])(?!@)[\p{Latin}013457@$!|]{2,64}+(?!\.?[\w/@])")
_SIGN_INSIDE = re.compile(r"[^\W\d_][013457@$!|]{1,2}[^\W\d_]")
_LATIN_LETTER = regex.compile(r"\p{Latin}")


def as_displayed(text: str) -> str:
    """Give the letters in the order in which a reader sees them, where controls of direction change it.

    Each such paragraph is laid out as a renderer does, by the Unicode bidirectional algorithm, with its controls and
    without them. Where letters and digits come out in one order, the controls hide nothing and stay. Else the line that
    is shown, from left to right, is laid out once more: Hebrew and Arabic that it holds get their own order back.
    """
    if not _DIRECTION.search(text):
        return text
    return "".join(_displayed(part) for part in _PARAGRAPH_END.split(text))


def _displayed(paragraph: str) -> str:
    if not _DIRECTION.search(paragraph):
        return paragraph
    # Off before the letters are turned around: a mark stands behind its letter.
    bare = without_stray_marks(paragraph)
    base = "R" if get_base_level(bare) else "L"
    shown = _DIRECTION.sub("", get_display(bare, base_dir=base))
    usual = get_display(_DIRECTION.sub("", bare), base_dir=base)
    if [*filter(str.isalnum, shown)] == [*filter(str.isalnum, usual)]:
        return paragraph
    return str(get_display(shown, base_dir=base))


def without_stray_marks(text: str) -> str:
    """Take off marks that are part of no letter, as those that strike a word out, in Latin, Cyrillic and Greek."""
    return _STRAY_MARKS.sub("", text)


def letters_of_flags(text: str) -> str:
    """Spell regional indicators, except where all of a run are flags of regions."""
    return _FLAGS.sub(_spelt_flags, text)


def _spelt_flags(match: re.Match[str]) -> str:
    letters = "".join([chr(ord(one) - ord(FLAG_LETTERS[0]) + ord("a")) for one in match[0]])
    pairs = [letters[at : at + 2].upper() for at in range(0, len(letters), 2)]
    return match[0] if _REGIONS.issuperset(pairs) else letters


def has_mark_inside(text: str) -> bool:
    """Say whether a mark of Markdown stands between two letters."""
    return _MARK_SIGN.search(text) is not None and _MARK_INSIDE.search(text) is not None


def without_marks(text: str) -> str:
    """Take the marks of Markdown out of words that have some between their letters: what is shown has none.

    Only marks that come in pairs, as those that a renderer takes away: `f**k` and `x**2` stay.
    """
    return _MARKED_WORD.sub(_unmarked, text) if has_mark_inside(text) else text


def _unmarked(match: re.Match[str]) -> str:
    word = match[0]
    if not has_mark_inside(word):
        return word
    counts = Counter(_MARKS.findall(word))
    return _MARKS.sub(lambda mark: mark[0] if counts[mark[0]] % 2 else "", word)


def without_gaps(text: str) -> str:
    """Join three or more single letters between which the same gaps stand; then pairs of single letters as well.

    A digit or sign for a letter may be among them.

    Who spaces one word out does it to others too: there a pair of letters is a word of two.
    """
    if not _SPACED_OUT.search(text):
        return text
    for pattern in (_SPACED_OUT, _SPACED_PAIR):
        text = pattern.sub(lambda match: _BETWEEN.sub("", match[0]), text)
    return _SPACES.sub(" ", text)


def letters_of_signs(text: str) -> str:
    """Spell digits and signs for letters in all words, where one word has some between its letters."""
    if _SIGN_INSIDE.search(text) and any(_SIGN_INSIDE.search(match[0]) for match in _LEET_WORD.finditer(text)):
        return _LEET_WORD.sub(_spelt_signs, text)
    return text


def _spelt_signs(match: regex.Match[str]) -> str:
    word = match[0]
    if not _LATIN_LETTER.search(word):
        return word
    stem = word.rstrip("@$!|")
    return stem.translate(LEET) + word[len(stem) :]
