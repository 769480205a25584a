"""Makes the second view of a text in which a person reads something else than a tokenizer.

The view undoes the disguises of `disguises`, invisible characters, styled letters and look-alikes from other scripts.
It never replaces the raw text: the guard judges both, and the worse one counts.
"""

from __future__ import annotations

import string
import unicodedata

import regex

from workers.guard.disguises import (
    FLAG_LETTERS,
    LEET,
    as_displayed,
    has_mark_inside,
    letters_of_flags,
    letters_of_signs,
    without_gaps,
    without_marks,
    without_stray_marks,
)
from workers.guard.letters import JOINERS, MARKS, folds, twins_of

RAW, NORMALIZED = "raw", "normalized"
"""The names of the views in an assessment. Every text has the raw view."""

LONG_CHARS = 1_000
"""Runs of marks in longer texts are cut first. NFC sorts marks in quadratic time: eight seconds for 125,000 marks."""

ROUNDS = 4
"""The rules are repeated at most so often: one rule may reveal a disguise that another rule undoes."""

_MARK_RUN = regex.compile(r"(\p{M}{30})\p{M}+")  # UAX 15 allows thirty in stream-safe text.
_WORD = regex.compile(r"[\p{L}\p{M}]+")
_LATIN_LETTER = regex.compile(r"\p{Latin}")
_NOT_CYRILLIC = regex.compile(r"[\p{L}--\p{Cyrillic}]", regex.V1)
_OTHER_LETTER = regex.compile(r"[\p{L}--\p{Latin}]", regex.V1)
_JOINERS = regex.compile(rf"(?<=[\p{{Latin}}\p{{Cyrillic}}\p{{Greek}}\p{{Han}}])[{JOINERS}]+")
_RARE_GAPS = "\u1680\u3000・･"
"""Gaps between letters that the kinds below confuse with letters."""

# Most texts contain no disguise. One pass over the bytes finds that in half a microsecond: it removes the bytes that
# continue a character, and maps letters of all scripts to `a`, digits and signs for letters to `1`, other digits to
# `9`, Markdown marks to `m`, control characters to `x`, and all other bytes to a space. The bytes 0xC2 and 0xE2 begin
# signs and spaces; the bytes from 0xF0 begin emoji.
_KINDS = bytes(
    (97 if chr(byte).isalpha() else 49 if byte in LEET else 57 if chr(byte).isdigit() else 32)
    if (32 <= byte < 127 or byte in b"\t\n\v\f\r") and byte not in b"*_~`"
    else 109
    if byte in b"*_~`"
    else 120
    for byte in range(128)
) + bytes(32 if byte in (0xC2, 0xE2) or byte >= 0xF0 else 97 for byte in range(128, 256))
_CONTINUING = bytes(range(0x80, 0xC0))
_LATIN_LETTERS = frozenset(
    chr(code)
    for code in (*range(0x2B0), *range(0x1D00, 0x1F00), *range(0xA720, 0xAC00))
    if _LATIN_LETTER.match(chr(code))
)


def _has_gaps(kinds: str) -> bool:
    return " a a a " in kinds or ("  a " in kinds and (" a  a  a " in kinds or " a   a   a " in kinds))


class Views:
    """The tables of look-alikes, which are made once."""

    def __init__(self) -> None:
        self._folds = dict(folds())
        self._to_latin = {
            ord(twin): letter
            for letter in string.ascii_letters
            for twin in twins_of(letter)
            if twin <= "\uffff" and _OTHER_LETTER.fullmatch(twin)
        }
        # The package has the look-alikes of I under l.
        for code, letter in self._to_latin.items():
            if letter == "l" and self._to_latin.get(ord(chr(code).lower())) == "i":
                self._to_latin[code] = "I"
        self._to_cyrillic = {
            ord(letter): chr(code) for code, letter in self._to_latin.items() if "А" <= chr(code) <= "я"
        }
        self._mixing = frozenset(map(chr, self._to_latin)).union(map(chr, range(0x400, 0x530)))
        self._never_plain = frozenset(map(chr, self._folds)).union(MARKS, JOINERS)
        self._rare = frozenset(FLAG_LETTERS + _RARE_GAPS)
        self._unusual = self._never_plain | self._mixing | self._rare

    def normalized(self, text: str) -> str | None:
        """Return the text as a person reads it, or None if it is written so."""
        if self._is_plain(text):
            return None
        if len(text) > LONG_CHARS:
            text = _MARK_RUN.sub(r"\1", text)
        composed = unicodedata.normalize("NFC", text)
        read = self.read(composed)
        return None if read == composed or not read.strip() else read

    def _is_plain(self, text: str) -> bool:
        """Return whether a quick look is enough to see that the text contains no disguise."""
        if "\r" in text:
            text = text.replace("\r\n", "\n")  # One gap.
        # As str: a search for bytes in bytes takes twice as long.
        kinds = f" {text.encode().translate(_KINDS, _CONTINUING).decode()} "
        if "x" in kinds:
            return False
        if "m" in kinds:
            if "am" in kinds and has_mark_inside(text):
                return False
            kinds = kinds.replace("m", " ")  # A mark may be a gap.
        if "1" in kinds:
            if "a1a" in kinds or "a11a" in kinds or ("a11" in kinds and has_mark_inside(text)):
                return False
            # A digit may be a letter of a word with gaps, and a sign may stand before or after such a word.
            if _has_gaps(kinds.replace(" 1 ", " a ").replace("1", " ")):
                return False
            kinds = kinds.replace("1", "a")
        if _has_gaps(kinds):
            return False
        if text.isascii():
            return True
        characters = set(text)
        if characters.isdisjoint(self._unusual):
            return True
        if not characters.isdisjoint(self._never_plain):
            return False
        if not (characters.isdisjoint(self._mixing) or characters.isdisjoint(_LATIN_LETTERS)):
            return False
        return characters.isdisjoint(self._rare) or without_gaps(letters_of_flags(text)) == text

    def read(self, text: str) -> str:
        """Undo every disguise in an NFC text, without the quick look."""
        for _ in range(ROUNDS):
            before, text = text, self._read(text)
            if text == before:
                break
        return text

    def _read(self, text: str) -> str:
        if not text.isascii():
            # First, because the next step removes the direction controls, and what separates letters from flags.
            text = letters_of_flags(as_displayed(text))
        text = text.translate(self._folds)
        if not text.isascii():
            text = unicodedata.normalize("NFC", _JOINERS.sub("", text))
            text = without_stray_marks(text)
            text = self._in_one_script(text)
        return letters_of_signs(without_gaps(without_marks(text)))

    def _in_one_script(self, text: str) -> str:
        """Write each word that mixes two alphabets in one of them."""
        if self._mixing.isdisjoint(text):
            return text
        # Only letters without a Latin look-alike count for the other script.
        is_latin_text = len(_LATIN_LETTER.findall(text)) > len(_OTHER_LETTER.findall(text.translate(self._to_latin)))

        def word(match: regex.Match[str]) -> str:
            old = match[0]
            latin = old.translate(self._to_latin)
            if latin == old and not _OTHER_LETTER.search(old):
                return old
            if not _OTHER_LETTER.search(latin):
                return latin if is_latin_text or _LATIN_LETTER.search(old) else old
            cyrillic = old.translate(self._to_cyrillic)
            return old if _NOT_CYRILLIC.search(cyrillic) else cyrillic

        return _WORD.sub(word, text)
