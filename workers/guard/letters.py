"""Tables of characters that are invisible or look like others, for `views` and `lookalikes`."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain

import regex
from confusable_homoglyphs.confusables import confusables_data

UNSEEN = r"[\p{Default_Ignorable_Code_Point}\p{Cc}--[\t\n\v\f\r\x85]]"
"""Invisible characters, with joiners and variation selectors: a class in the syntax of `regex.V1`."""

JOINERS = "\u200c\u200d" + "".join(map(chr, range(0xFE00, 0xFE10)))
"""Joiners and variation selectors. They shape letters of Persian and Hindi, form emoji, and else are invisible."""

MARKS = "".join(
    map(
        chr,
        chain(
            range(0x300, 0x370),
            range(0x483, 0x48A),
            range(0x1AB0, 0x1B00),
            range(0x1DC0, 0x1E00),
            range(0x20D0, 0x2100),
        ),
    )
)
"""Combining marks of Latin, Cyrillic and Greek, and marks that strike out or frame a character."""

SPACES = "\t \u00a0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u202f\u205f\u2800\u3000"
"""Every space within a line: Unicode's class Zs, the tab, and the Braille pattern without dots."""

LINE_ENDS = "\n\v\f\r\x85\u2028\u2029"

_INVISIBLE = regex.compile(rf"[{UNSEEN}--[\u200c\u200d\ufe00-\ufe0f]]", regex.V1)
_STYLED_NAME = re.compile(r"(?:LATIN LETTER SMALL CAPITAL|NEGATIVE (?:CIRCLED|SQUARED) LATIN CAPITAL LETTER) ([A-Z])")

_STYLED_CATEGORIES = ("Ll", "So")

_FOLDED = (*range(0x3400), *range(0xA000, 0xAC00), *range(0xF900, 0x20000), *range(0xE0000, 0xE1000))
"""The ranges of styled letters and invisible characters. Ideographs, Hangul and private use are left out."""

_ACCENTED = (*range(0xC0, 0x250), *range(0x1E00, 0x1F00))


@cache
def folds() -> Mapping[int, str | None]:
    """Map styled letters to plain ones, and invisible characters to None. The characters around them do not matter."""
    return dict(_folds())


def _folds() -> Iterator[tuple[int, str | None]]:
    for code in _FOLDED:
        character = chr(code)
        # Without a decomposition NFKC changes nothing, and the look for one is faster.
        plain = unicodedata.normalize("NFKC", character) if unicodedata.decomposition(character) else character
        # Compatibility forms of signs stay: Chinese is written with full-width commas.
        if plain != character and plain.isascii() and plain.isalnum():
            yield code, plain
        elif unicodedata.category(character) in _STYLED_CATEGORIES and (
            styled := _STYLED_NAME.fullmatch(unicodedata.name(character))
        ):
            yield code, styled[1].lower()
    for invisible in _INVISIBLE.findall("".join(map(chr, _FOLDED))):
        yield ord(invisible), None


def twins_of(character: str) -> Iterator[str]:
    """Return the single characters that look like this one, by the package confusable-homoglyphs."""
    # The package writes characters of right-to-left scripts between direction marks. These are left out.
    return (twin["c"] for twin in confusables_data.get(character, ()) if len(twin["c"]) == 1)


@cache
def variants() -> Mapping[str, frozenset[str]]:
    """Map each ASCII character, letters in lower case, to the characters that can imitate it: both cases, look-alikes,
    and styled, full-width and accented forms."""
    found = {character: set(character + character.upper()) for character in string.printable if not character.isupper()}
    for character in (*string.ascii_letters, *string.digits, *string.punctuation):
        found[character.lower()].update(twins_of(character))
    for code, plain in folds().items():
        if plain is not None and len(plain) == 1:
            found[plain.lower()].add(chr(code))
    for code in range(0xFF01, 0xFF5F):  # Full-width signs.
        found[chr(code - 0xFEE0).lower()].add(chr(code))
    for code in _ACCENTED:
        base = unicodedata.normalize("NFD", chr(code))[0]
        if base.isascii():
            found[base.lower()].add(chr(code))
    found["i"] |= found["l"]  # The package has the look-alikes of I under l.
    return {character: frozenset(others) for character, others in found.items()}


def one_of(characters: Iterable[str]) -> str:
    """Return a class of these characters in the syntax of `re`, as ranges."""
    ranges: list[list[int]] = []
    for code in sorted({ord(character) for character in characters}):
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return f"[{''.join(f'{re.escape(chr(first))}-{re.escape(chr(last))}' for first, last in ranges)}]"
