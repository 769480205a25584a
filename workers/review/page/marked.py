"""Splits a text that others wrote into what can be shown as it is, and characters that only a mark can show.

A browser obeys characters that change the direction of writing, and shows nothing for others. Both would let a text
look like another one. Escaping HTML is not done here: the templates escape every part.
"""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

# Controls but for tab and line feed, what has no glyph (Cf: directions, zero widths, tags), line and paragraph
# separators, lone surrogates, private use, and the fillers that are letters without a glyph. Runs of one count as one.
_HIDDEN = re.compile(
    r"([\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u206f\u2800\u3164\ud800-\uf8ff\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff\U000f0000-\U0010ffff])\1*"
)
_JOINERS = "\u200c\u200d"


class Part(NamedTuple):
    """A piece of a text: `text` to show as it is, or a `mark` to show in place of `times` equal characters."""

    text: str
    mark: str = ""
    name: str = ""
    times: int = 1


def marked(text: str) -> list[Part]:
    r"""Split a text into pieces, in their order. Nothing is left out, but for the `\r` of a line break `\r\n`.

    Joiners between two characters outside ASCII stay as they are: Persian and Hindi are spelled with them, and emoji
    are made of them.
    """
    text = text.replace("\r\n", "\n")
    parts: list[Part] = []
    shown = 0
    for found in _HIDDEN.finditer(text):
        begin, end = found.span()
        char = text[begin]
        if char in _JOINERS and end - begin == 1 and _joins(text, begin):
            continue
        if shown < begin:
            parts.append(Part(text[shown:begin]))
        parts.append(Part("", f"U+{ord(char):04X}", _name(char), end - begin))
        shown = end
    if shown < len(text):
        parts.append(Part(text[shown:]))
    return parts


def _joins(text: str, at: int) -> bool:
    before, after = text[at - 1 : at] if at else "", text[at + 1 : at + 2]
    return all(char > "\x7f" and not _HIDDEN.match(char) for char in (before, after))


def _name(char: str) -> str:
    kinds = {"Cc": "CONTROL CHARACTER", "Cs": "LONE SURROGATE", "Co": "PRIVATE USE"}
    return unicodedata.name(char, "") or kinds.get(unicodedata.category(char), "UNASSIGNED")
