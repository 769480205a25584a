"""Brings a text into Unicode's form NFC while it arrives, and notes how many characters as pushed each result covers.

A change at the end of a text reaches back to the last character that begins a segment, and not further. So a segment is
normalised as soon as the next one begins.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

MAX_SEGMENT_CHARS = 64
"""A longer segment (one letter with more than 60 accents) is normalised before its end is known."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_PAIR_OR_CHARACTER = re.compile("[\ud800-\udbff][\udc00-\udfff]|.", re.DOTALL)


class Segments:
    """Takes deltas of a text, and gives it back in NFC.

    The halves of a surrogate pair become one character, also from two deltas. A half alone becomes U+FFFD, as in
    `tokenizers` and tiktoken.

    Attributes:
        forced: how many segments were longer than `MAX_SEGMENT_CHARS`.
    """

    __slots__ = ("_has_nfc", "_high", "_open", "_open_widths", "forced")

    def __init__(self, *, has_nfc: bool) -> None:
        self._has_nfc = has_nfc
        self._high = ""
        self._open = ""
        self._open_widths: list[int] = []
        self.forced = 0

    def push(self, text: str) -> tuple[str, list[int]]:
        """Take the next delta.

        Returns: the characters that no further delta can change, and for each of them its width: how many characters
            of the text as pushed are covered once this one is. Inside a segment that NFC changed, the last character
            has the width of the whole segment, and the others have 0.
        """
        text = self._high + text
        self._high = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
        self._take(text[: len(text) - len(self._high)])
        border = len(self._open)
        if self._has_nfc:
            border = _last_start(self._open)
            if len(self._open) - border > MAX_SEGMENT_CHARS:
                self.forced += 1
                border = len(self._open)
        return self._settle(border)

    def end(self) -> tuple[str, list[int]]:
        """Give the rest."""
        self._take(self._high)
        self._high = ""
        return self._settle(len(self._open))

    def _take(self, text: str) -> None:
        if text.isascii() or not _SURROGATE.search(text):
            self._open += text
            self._open_widths += [1] * len(text)
            return
        for match in _PAIR_OR_CHARACTER.finditer(text):
            found = match[0]
            self._open_widths.append(len(found))
            self._open += _joined(found)

    def _settle(self, border: int) -> tuple[str, list[int]]:
        text, widths = self._open[:border], self._open_widths[:border]
        self._open = self._open[border:]
        del self._open_widths[:border]
        if not self._has_nfc or text.isascii() or unicodedata.is_normalized("NFC", text):
            return text, widths
        normal = ""
        normal_widths: list[int] = []
        start = 0
        for end in range(1, len(text) + 1):
            if end < len(text) and not _starts_segment(text[end]):
                continue
            segment = unicodedata.normalize("NFC", text[start:end])
            normal += segment
            if segment == text[start:end]:
                normal_widths += widths[start:end]
            else:
                normal_widths += [0] * (len(segment) - 1) + [sum(widths[start:end])]
            start = end
        return normal, normal_widths


def _joined(found: str) -> str:
    if len(found) == 2:
        return found.encode("utf-16", "surrogatepass").decode("utf-16")
    return "\ufffd" if _SURROGATE.match(found) else found


def _last_start(text: str) -> int:
    """Give the index of the last character that begins a segment, or 0."""
    index = len(text) - 1
    while index > 0 and not _starts_segment(text[index]):
        index -= 1
    return max(0, index)


@cache
def _starts_segment(character: str) -> bool:
    """Whether NFC changes nothing across the border before this character: it neither reorders nor composes there."""
    first = unicodedata.normalize("NFD", character)[0]
    return not unicodedata.combining(first) and not {first, character} & _second_characters()


@cache
def _second_characters() -> frozenset[str]:
    """All characters that can compose with the character before them (50 ms)."""
    decompositions = [unicodedata.decomposition(chr(code)).split() for code in range(0x20000)]
    listed = {chr(int(parts[1], 16)) for parts in decompositions if len(parts) == 2 and not parts[0].startswith("<")}
    # Hangul vowels and final consonants, which Unicode composes by arithmetic and not by its list.
    hangul = {chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))}
    return frozenset(listed | hangul)
