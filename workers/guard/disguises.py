"""The rules that undo disguises. Each rule is a function of the text, and returns ordinary writing unchanged."""

from __future__ import annotations

import re
from collections import Counter

import regex
from bidi import get_base_level, get_display

from workers.guard.letters import LINE_ENDS, SPACES

_DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
_PARAGRAPH_END = re.compile("([\n\r\x1c-\x1e\x85\u2029]+)")

# Marks that NFC composed with no letter. These alphabets do not use them, and struck-out words consist of them.
_STRAY_MARKS = regex.compile(r"(?<=[\p{Latin}\p{Cyrillic}\p{Greek}])[\p{Mn}\p{Me}]+")

FLAG_LETTERS = "".join(map(chr, range(0x1F1E6, 0x1F200)))
"""Regional indicators, A to Z. Screens show two of them as a flag if they are the code of a region."""
_FLAGS = re.compile(f"[{FLAG_LETTERS[0]}-{FLAG_LETTERS[-1]}]+")
_REGION_CODES = """
A:CDEFGILMOQRSTUWXZ B:ABDEFGHIJLMNOQRSTVWYZ C:ACDFGHIKLMNOPQRUVWXYZ D:EGJKMOZ E:ACEGHRSTU F:IJKMOR
G:ABDEFGHILMNPQRSTUWY H:KMNRTU I:CDELMNOQRST J:EMOP K:EGHIMNPRWYZ L:ABCIKRSTUVY M:ACDEFGHKLMNOPQRSTUVWXYZ
N:ACEFGILOPRUZ O:M P:AEFGHKLMNRSTWY Q:A R:EOSUW S:ABCDEGHIJKLMNORSTVXYZ T:ACDFGHJKLMNORTVWZ U:AGMNSYZ V:ACEGINU
W:FS X:K Y:ET Z:AMW
"""
"""The codes of ISO 3166-1 and the other codes that have a flag in Unicode's list of emoji, by their first letter."""
_REGIONS = frozenset(line[0] + second for line in _REGION_CODES.split() for second in line[2:])

# A mark between two letters. Possessive, so that a megabyte of asterisks takes as long as a megabyte of prose.
_MARK_INSIDE = re.compile(r"(?<=[^\W\d_])(?:[*`]|__|~~|\|\|)[*_~|`]*+(?=[^\W_])")
_MARK_SIGN = re.compile(r"[*_~|`]")
_MARKED_WORD = re.compile(r"(?:[^\W_]|[*_~|`])+")
_MARKS = re.compile(r"\*\*|__|~~|\|\||`|\*")

BULLETS = "·‐‑‒–—―…⸱・･"
"""Signs outside ASCII that stand between letters, in addition to Unicode's symbols (class So)."""
_SPACE = rf"(?>\r\n|[{SPACES}{LINE_ENDS}])"
_SIGN = rf"[{SPACES}{re.escape('._*-/~+=#^')}\\{BULLETS}‣•‧∙⋅❤♥\ufe0f\p{{So}}]"
_LETTERS = r"\p{Latin}\p{Cyrillic}\p{Greek}"  # In other scripts one letter is often a word.
_LETTER, _INNER = f"[{_LETTERS}]", f"[{_LETTERS}013457@$]"
_BEFORE, _BEHIND = r"(?<![\p{L}\p{N}])", r"(?![\p{L}\p{N}])"
# The gaps are the same number of spaces of any kind, or the same signs.
_EVEN = "|".join(f"(?:{gap}{_INNER})+{gap}{_LETTER}" for gap in (_SPACE, f"{_SPACE}{{2}}", f"{_SPACE}{{3}}"))
_SPACED_OUT = regex.compile(
    rf"{_BEFORE}{_LETTER}(?:{_EVEN}|(?P<gap>{_SIGN}{{1,3}}|[!|]{{1,2}})(?:{_INNER}(?P=gap))+{_LETTER}){_BEHIND}"
)
_SPACED_PAIR = regex.compile(rf"{_BEFORE}{_LETTER}(?:{_SPACE}{{1,2}}|{_SIGN}|[!|]){_LETTER}{_BEHIND}")
_BETWEEN = regex.compile(rf"[^{_LETTERS}013457@$]+")
_SPACES = re.compile(f"[{SPACES}]{{2,}}")

LEET = str.maketrans("013457@$!|", "oieastasil")
"""The letters for which digits and signs stand."""
# Only whole words: parts of addresses and of names behind an @ stay. The pattern is possessive, so that a megabyte of
# one letter takes as long as a megabyte of prose.
_LEET_WORD = regex.compile(r"(?<![./:@\w])(?!@)[\p{Latin}013457@$!|]{2,64}+(?!\.?[\w/@])")
_SIGN_INSIDE = re.compile(r"[^\W\d_][013457@$!|]{1,2}[^\W\d_]")
_LATIN_LETTER = regex.compile(r"\p{Latin}")


def as_displayed(text: str) -> str:
    """Return the letters in the order in which a reader sees them, if direction controls change this order.

    The Unicode bidirectional algorithm lays each paragraph out with its controls and without them. If both results have
    the letters and digits in the same order, the controls hide nothing, and the paragraph is returned unchanged. Else
    the displayed line is laid out once more, which restores the reading order of its Hebrew and Arabic words.
    """
    if not _DIRECTION.search(text):
        return text
    return "".join(_displayed(part) for part in _PARAGRAPH_END.split(text))


def _displayed(paragraph: str) -> str:
    if not _DIRECTION.search(paragraph):
        return paragraph
    # Before the layout, because a mark follows its letter, and the layout would put the mark before it.
    bare = without_stray_marks(paragraph)
    shown = _DIRECTION.sub("", get_display(bare))
    base = "R" if get_base_level(bare) else "L"
    usual = get_display(_DIRECTION.sub("", bare), base_dir=base)
    if [*filter(str.isalnum, shown)] == [*filter(str.isalnum, usual)]:
        return paragraph
    return str(get_display(shown, base_dir=base))


def without_stray_marks(text: str) -> str:
    """Remove marks that belong to no letter, such as those that strike a word out, in Latin, Cyrillic and Greek."""
    return _STRAY_MARKS.sub("", text)


def letters_of_flags(text: str) -> str:
    """Replace regional indicators by letters, unless all pairs of a run are flags."""
    return _FLAGS.sub(_spelt_flags, text)


def _spelt_flags(match: re.Match[str]) -> str:
    letters = "".join([chr(ord(one) - ord(FLAG_LETTERS[0]) + ord("a")) for one in match[0]])
    pairs = [letters[at : at + 2].upper() for at in range(0, len(letters), 2)]
    return match[0] if _REGIONS.issuperset(pairs) else letters


def has_mark_inside(text: str) -> bool:
    """Return whether a Markdown mark stands between two letters."""
    return _MARK_SIGN.search(text) is not None and _MARK_INSIDE.search(text) is not None


def without_marks(text: str) -> str:
    """Remove Markdown marks from words that have marks between their letters, because a renderer does not show them.

    A renderer removes marks in pairs only: `f**k` and `x**2` stay.
    """
    return _MARKED_WORD.sub(_unmarked, text) if has_mark_inside(text) else text


def _unmarked(match: re.Match[str]) -> str:
    word = match[0]
    if not has_mark_inside(word):
        return word
    counts = Counter(_MARKS.findall(word))
    return _MARKS.sub(lambda mark: mark[0] if counts[mark[0]] % 2 else "", word)


def without_gaps(text: str) -> str:
    """Join three or more single letters with equal gaps between them. One may be a digit or sign for a letter.

    If the text contains such letters, pairs of single letters are joined as well: they are words of two letters.
    """
    if not _SPACED_OUT.search(text):
        return text
    for pattern in (_SPACED_OUT, _SPACED_PAIR):
        text = pattern.sub(lambda match: _BETWEEN.sub("", match[0]), text)
    return _SPACES.sub(" ", text)


def letters_of_signs(text: str) -> str:
    """Replace digits and signs for letters in all words, if one word has some between its letters."""
    if _SIGN_INSIDE.search(text) and any(_SIGN_INSIDE.search(match[0]) for match in _LEET_WORD.finditer(text)):
        return _LEET_WORD.sub(_spelt_signs, text)
    return text


def _spelt_signs(match: regex.Match[str]) -> str:
    word = match[0]
    if not _LATIN_LETTER.search(word):
        return word
    stem = word.rstrip("@$!|")
    return stem.translate(LEET) + word[len(stem) :]
