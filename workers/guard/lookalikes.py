"""Marks the lines of a content that look like lines of the checkpoint's own template.

Apart from a few control tokens, the template is plain text. A writer can therefore imitate the template with a line
such as `<END CONVERSATION>` or `Safety: Safe`. A sign before the line makes it another line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby

from workers.guard.letters import JOINERS, LINE_ENDS, MARKS, SPACES, folds, one_of, variants

LEAST_WORDS, MOST_WORDS = 4, 6
"""A line of the template that is neither a tag nor a heading counts if it has at least four words, by its first six.
Shorter lines, such as the name of a category, are also ordinary messages."""

_PREFIXES = "#>*_~`+|•.)0123456789-"
"""Characters that may stand before a heading or an item of a list."""

_TAG = re.compile(r"[<\[][^<>\[\]\w]*\w[^<>\[\]]*(?=[>\]])")
_HEADING = re.compile(r"[^\W_][\w'’&/-]*(?: [\w'’&/-]+){0,2}(?=\s*[:：])")
_BEFORE_WORDS = re.compile(r"^(?:\d+[.)]|[^\w<\[])*")

_UNSEEN = "".join([chr(code) for code, plain in folds().items() if plain is None]) + JOINERS
_UNSEEN_ENDS = frozenset("\x1c\x1d\x1e")
"""Python splits lines at these characters. Readers do not see them."""
_LINES = re.compile(f"[^{LINE_ENDS}]*+[{LINE_ENDS}]|[^{LINE_ENDS}]++")
_GAP = one_of(_UNSEEN + SPACES + MARKS + ".,'’*_~`|")


class Lookalikes:
    """Finds the lines of a content that look like a line of the given texts: a template, or an answer's lines."""

    def __init__(self, texts: Iterable[str]) -> None:
        lines = {line.strip() for text in texts for line in text.splitlines()}
        keys = sorted({key for line in lines for key in _keys(line)})
        # The sign must not turn the line into an item of one of the template's lists.
        self._sign = next(sign for sign in "-|~" if not any(line.startswith(sign) for line in lines))
        before = _PREFIXES.replace(self._sign, "") + SPACES + _UNSEEN
        self._before = frozenset(before)
        self._prefix = re.compile(f"{one_of(before)}*+")
        self._by_first: dict[str, re.Pattern[str]] = {}
        for first, similar in groupby(keys, key=lambda key: key[0]):
            self._by_first.update(dict.fromkeys(_imitations(first), re.compile(_any_of(similar))))

    def neutral(self, text: str) -> str:
        """Put a sign before each line that looks like a line of the template. Other texts are returned unchanged.

        Case, spaces, invisible characters, accents, Markdown and look-alikes from other scripts make no difference.
        """
        lines = text.splitlines(keepends=True)
        if len(lines) > 1 and not _UNSEEN_ENDS.isdisjoint(text):
            lines = _LINES.findall(text)
        if not any(map(self._is_imitation, lines)):
            return text
        return "".join([f"{self._sign} {line}" if self._is_imitation(line) else line for line in lines])

    def _is_imitation(self, line: str) -> bool:
        # A look at the first letter decides about most lines.
        begins = 0
        if line[0] in self._before:
            begins = self._prefix.match(line).end()  # type: ignore[union-attr]  # It always matches.
        pattern = self._by_first.get(line[begins : begins + 1])
        return pattern is not None and pattern.match(line, begins) is not None


def _keys(line: str) -> Iterator[str]:
    """Return the part by which a line of the template is recognised: its tag, its heading, or its first words."""
    bare = _BEFORE_WORDS.sub("", line, count=1)
    if tag := _TAG.match(bare):
        yield _letters(tag[0])
    elif heading := _HEADING.match(bare):
        yield _letters(heading[0]) + ":"
    elif len(words := bare.split()) >= LEAST_WORDS:
        yield _letters("".join(words[:MOST_WORDS]))


def _letters(text: str) -> str:
    return "".join([character for character in text.casefold() if character.isalnum() or character in "<[/"])


def _any_of(keys: Iterable[str]) -> str:
    """Return a pattern. It is possessive, so that a megabyte of spaces takes as long as a megabyte of prose."""
    return "|".join([f"{_GAP}*+".join(map(_class_of, key)) for key in keys])


@cache
def _class_of(character: str) -> str:
    return one_of(_imitations(character))


def _imitations(character: str) -> frozenset[str]:
    return variants().get(character) or frozenset((character, character.upper()))
