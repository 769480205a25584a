"""Finds the ends of sentences in a text that comes in parts, in the writing systems of many languages."""

from __future__ import annotations

from collections import deque

_ENDS_ALONE = frozenset("\n\r\u2028\u2029…。！？｡．﹒﹖﹗।॥؟۔։።፧፨។៕။།༎᠃᠉᙮꓿꘎꘏᪨᪩᭚᭛꩝꩞꩟")
"""Characters after which a sentence ends, whatever follows: line breaks, and the full stops of writing systems that use
them for nothing else."""

_ENDS_BEFORE_SPACE = frozenset(".!?‽⁇⁈⁉")
"""Characters after which a sentence ends if white space follows. Else `3.14` would be two sentences."""

_CLOSES = frozenset("\"'”’»›）)]』」】〉》｣")
"""Quotation marks and brackets that belong to the sentence before them."""


class Sentences:
    """The ends of the sentences of a text.

    The result does not depend on how the text is divided into parts. A sentence whose mark is the last character so far
    ends only when the next character is known.
    """

    __slots__ = ("_ends", "_length", "_mark", "_reached")

    def __init__(self) -> None:
        self._length = 0
        self._mark = ""
        """`alone` or `space` after a mark and the closing characters behind it; otherwise empty."""
        self._ends: deque[int] = deque()
        self._reached = 0

    def push(self, text: str) -> None:
        """Take the next part of the text."""
        for char in text:
            if char in _ENDS_ALONE:
                self._mark = "alone"
            elif char in _ENDS_BEFORE_SPACE:
                self._mark = "alone" if self._mark == "alone" else "space"
            elif self._mark and char not in _CLOSES:
                if self._mark == "alone" or char.isspace():
                    self._ends.append(self._length)
                self._mark = ""
            self._length += 1

    def last_end(self, limit: int) -> int:
        """Return the last end at or before `limit` characters; 0 if there is none. `limit` must not fall."""
        while self._ends and self._ends[0] <= limit:
            self._reached = self._ends.popleft()
        return self._reached
