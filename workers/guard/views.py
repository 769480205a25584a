"""A second reading of a text that was written so that people read one thing and a tokenizer another.

It undoes invisible characters, styled letters, look-alikes of other scripts, stacked marks, spaced-out words and
digits for letters. It never replaces the raw text: both are judged, and the worse one counts.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable

import regex
from confusable_homoglyphs.confusables import confusables_data

RAW, NORMALIZED = "raw", "normalized"
"""Their names in an assessment. All texts have the first one."""

UNSEEN = r"[\p{Default_Ignorable_Code_Point}\p{Cc}--[\t\n\v\f\r\x85]]"
"""Characters that show nothing, joiners and variation selectors included: a class of `regex.V1`."""

LONG_CHARS = 1_000
"""In longer texts runs of marks are cut first: composing sorts them in quadratic time, eight seconds for 125,000."""

_MARK_RUN = regex.compile(r"(\p{M}{30})\p{M}+")  # More than thirty are no writing (UAX 15, stream-safe text).
_LEET = str.maketrans("013457@$!|", "oieastasil")
# Whole words: parts of addresses and of names behind an @ are left alone. No pattern here goes back over what it has
# read: a megabyte of one letter takes as long as a megabyte of prose.
_LEET_WORD = regex.compile(r"(?<![./:@\w])(?!@)[\p{Latin}013457@$!|]{2,64}+(?!\.?[\w/@])")
_SIGN_INSIDE = re.compile(r"[^\W\d_][013457@$!|]{1,2}[^\W\d_]")
_LETTER = r"[\p{Latin}\p{Cyrillic}\p{Greek}]"  # In other scripts one letter is often a word.
_GAP = r"(?P<gap>[ \n]{1,2}|[._*\-|/~])"
_SPACED_OUT = regex.compile(rf"(?<![\p{{L}}\p{{N}}]){_LETTER}{_GAP}{_LETTER}(?:(?P=gap){_LETTER})+(?![\p{{L}}\p{{N}}])")
_SPACED_PAIR = regex.compile(rf"(?<![\p{{L}}\p{{N}}]){_LETTER}{_GAP}{_LETTER}(?![\p{{L}}\p{{N}}])")
_SPACES = re.compile(r" {2,}")
_WORD = regex.compile(r"[\p{L}\p{M}]+")
_LATIN_LETTER = regex.compile(r"\p{Latin}")
_OTHER_LETTER = regex.compile(r"[\p{L}--\p{Latin}]", regex.V1)
# Marks that composed with nothing: no alphabet here stacks them, and a struck-out word is made of them.
_STRAY_MARKS = regex.compile(r"(?<=[\p{Latin}\p{Cyrillic}\p{Greek}])[\p{Mn}\p{Me}]+")
# Joiners shape the letters of Persian and Hindi, and they and the variation selectors make emoji: invisible only here.
_JOINERS = regex.compile(r"(?<=[\p{Latin}\p{Cyrillic}\p{Greek}\p{Han}])[\u200c\u200d\ufe00-\ufe0f]+")
_INVISIBLE = regex.compile(rf"[{UNSEEN}--[\u200c\u200d\ufe00-\ufe0f]]", regex.V1)
_MARKS_AND_JOINERS = frozenset(
    map(chr, (*range(0x300, 0x370), *range(0x483, 0x48A), *range(0x1AB0, 0x1B00), *range(0x1DC0, 0x1E00)))
) | frozenset(map(chr, (*range(0x20D0, 0x2100), 0x200C, 0x200D, *range(0xFE00, 0xFE10))))
_STYLED_NAME = re.compile(r"(?:LATIN LETTER SMALL CAPITAL|NEGATIVE (?:CIRCLED|SQUARED) LATIN CAPITAL LETTER) ([A-Z])")

_FOLDED = (*range(0x3400), *range(0xA000, 0xAC00), *range(0xF900, 0x20000), *range(0xE0000, 0xE1000))
"""Where letters in disguise and invisible characters are: neither ideographs, nor Hangul, nor private use."""

# Most texts hold nothing to undo, and a pass over their bytes tells in half a microsecond. Letters (of other scripts as
# well, once the bytes that continue a character are gone) become `a`, digits and signs for letters `1`, other digits
# `9`, control characters `x`, all else a space.
_KINDS = (
    bytes(
        (97 if chr(byte).isalpha() else 49 if byte in _LEET else 57 if chr(byte).isdigit() else 32)
        if 32 <= byte < 127 or byte in b"\t\n\v\f\r"
        else 120
        for byte in range(128)
    )
    + b"a" * 128
)
_CONTINUING = bytes(range(0x80, 0xC0))
_ASCII_LETTERS = frozenset(string.ascii_letters)


class Views:
    """The tables of look-alikes, made once."""

    def __init__(self) -> None:
        self._folds = dict(_folds())
        self._to_latin = {
            ord(twin["c"]): letter
            for letter in string.ascii_letters
            for twin in confusables_data[letter]
            if twin["c"] <= "\uffff" and _OTHER_LETTER.fullmatch(twin["c"])
        }
        self._to_cyrillic = {
            ord(letter): chr(code) for code, letter in self._to_latin.items() if "А" <= chr(code) <= "я"
        }
        self._twins = frozenset(map(chr, self._to_latin))
        self._never_plain = frozenset(map(chr, self._folds)) | _MARKS_AND_JOINERS

    def normalized(self, text: str) -> str | None:
        """Give the text as a person reads it; None where that is how it is written."""
        # As text: to look for bytes in bytes takes twice as long.
        kinds = f" {text.encode().translate(_KINDS, _CONTINUING).decode()} "
        has_sign_inside = "1" in kinds and ("a1a" in kinds or "a11a" in kinds)
        if not (has_sign_inside or "x" in kinds or " a a a " in kinds or " a  a  a " in kinds):
            if text.isascii():
                return None
            characters = set(text)
            if characters.isdisjoint(self._never_plain) and (
                characters.isdisjoint(self._twins) or characters.isdisjoint(_ASCII_LETTERS)
            ):
                return None
        if len(text) > LONG_CHARS:
            text = _MARK_RUN.sub(r"\1", text)
        composed = unicodedata.normalize("NFC", text)
        read = self._read(composed)
        return None if read == composed or not read.strip() else read

    def _read(self, text: str) -> str:
        text = text.translate(self._folds)
        if not text.isascii():
            text = unicodedata.normalize("NFC", _JOINERS.sub("", text))
            text = _STRAY_MARKS.sub("", text)
            text = self._in_one_script(text)
        if _SPACED_OUT.search(text):
            # Who spaces one word out does it to others too: there a pair of letters is a word of two.
            for pattern in (_SPACED_OUT, _SPACED_PAIR):
                text = pattern.sub(lambda match: match[0].replace(match["gap"], ""), text)
            text = _SPACES.sub(" ", text)
        if any(_SIGN_INSIDE.search(match[0]) for match in _LEET_WORD.finditer(text)):
            text = _LEET_WORD.sub(_spelt, text)
        return text

    def _in_one_script(self, text: str) -> str:
        """Write each word that mixes an alphabet with its look-alikes in one."""
        # Letters that look like none of Latin's tell a text of another script, however many do.
        is_latin_text = len(_LATIN_LETTER.findall(text)) > len(_OTHER_LETTER.findall(text.translate(self._to_latin)))

        def word(match: regex.Match[str]) -> str:
            old = match[0]
            latin = old.translate(self._to_latin)
            if latin == old and not _OTHER_LETTER.search(old):
                return old
            if not _OTHER_LETTER.search(latin):
                return latin if is_latin_text or _LATIN_LETTER.search(old) else old
            cyrillic = old.translate(self._to_cyrillic)
            return old if _LATIN_LETTER.search(cyrillic) else cyrillic

        return _WORD.sub(word, text)


def _spelt(match: regex.Match[str]) -> str:
    word = match[0]
    if not _LATIN_LETTER.search(word):
        return word
    stem = word.rstrip("@$!|")
    return stem.translate(_LEET) + word[len(stem) :]


def _folds() -> Iterable[tuple[int, str | None]]:
    """Say what becomes of each character whatever stands around it: letters in disguise, and invisible ones."""
    for code in _FOLDED:
        character = chr(code)
        if _INVISIBLE.match(character):
            yield code, None
        else:
            plain = unicodedata.normalize("NFKC", character)
            styled = _STYLED_NAME.fullmatch(unicodedata.name(character, ""))
            # Compatibility forms of signs are left alone: full-width commas are how Chinese is written.
            if plain != character and plain.isascii() and plain.isalnum():
                yield code, plain
            elif styled:
                yield code, styled[1].lower()
