"""Turns the text of an answer into the guard's token ids while the text arrives.

The ids are those of the whole text, however the text is divided into deltas: they are never taken back. What a later
delta could still change is held.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from workers.live.segments import Segments
from workers.live.vocabulary import Vocabulary

MAX_HELD_CHARS = 512
"""At most so many characters are held besides the last segment. Ordinary text of 14 languages holds 11, repeats 137."""

SLICE_CHARS = 256
"""`push` works on slices of this length: 0.5 ms for English, 1 ms for Chinese, 15 ms for a run of one sign (guard-nano,
a busy core). The cost of a run without spaces is its length times the number of its possible ends."""

_LONG_RUN_CHARS = 8
"""A shorter last word is held as a whole: most words are shorter, and then no possible ends have to be compared."""


class Piece(NamedTuple):
    """A token.

    Attributes:
        id: the token, in the guard's vocabulary; never the id of a control token.
        chars: how many characters of all text pushed so far, as it was pushed, are covered by the tokens up to this
            one. A character that is covered in part does not count, and neither does one whose accent is not covered.
    """

    id: int
    chars: int


def slices(text: str) -> Iterator[str]:
    """Divide a long delta, so that the caller can let other tasks run between two calls of `push`."""
    return (text[start : start + SLICE_CHARS] for start in range(0, len(text), SLICE_CHARS))


class Increments:
    """One text that arrives in deltas, as str or as UTF-8 bytes.

    Guarantee: the ids of all pieces are the ids of the whole text, and `chars` never falls. At the end, `chars` is the
    length of all text. Exceptions are counted in `forced`.

    Both methods block: 15 to 45 µs for a delta of 4 characters (14 languages, guard-nano, a busy core), 2 s for a
    megabyte of Chinese: see `slices`. They raise nothing.

    Attributes:
        chars: how many characters, as pushed, the pieces so far cover.
        forced: how often something was encoded before its end was known, to bound what is held: more than
            `MAX_HELD_CHARS` of white space or of a run whose tokens do not settle, or more than 64 accents on one
            letter. There the ids may differ from those of the whole text.
    """

    __slots__ = ("_buffer", "_decoder", "_forced", "_segments", "_vocabulary", "_widths", "chars")

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._segments = Segments(has_nfc=vocabulary.has_nfc)
        self._buffer = ""
        self._widths: list[int] = []
        self._forced = 0
        self.chars = 0

    @property
    def forced(self) -> int:
        """See the class."""
        return self._forced + self._segments.forced

    def push(self, delta: str | bytes) -> list[Piece]:
        """Take the next delta, and give the tokens that no further delta can change. Half a character waits.

        Bytes count as the characters that they are decoded to. Give bytes or str for one text, and not both.
        """
        text = delta if isinstance(delta, str) else self._decoder.decode(delta)
        pieces: list[Piece] = []
        for start in range(0, len(text), SLICE_CHARS):
            self._append(*self._segments.push(text[start : start + SLICE_CHARS]))
            pieces += self._settled()
        return pieces

    def end(self) -> list[Piece]:
        """Give the rest. Half a character becomes U+FFFD. Nothing can be pushed afterwards."""
        pieces = self.push(self._decoder.decode(b"", final=True))
        self._append(*self._segments.end())
        return pieces + self._take(self._vocabulary.parts(self._buffer))

    def _append(self, text: str, widths: list[int]) -> None:
        self._buffer += text
        self._widths += widths

    def _settled(self) -> list[Piece]:
        """Take what is final from the buffer."""
        parts = self._vocabulary.parts(self._buffer)
        final = _final(parts)
        # Encoded part by part, and never as a text by itself: the split looks ahead at what is held.
        pieces = self._take(parts[:final])
        if len(parts) - final == 1 and not parts[final].isspace() and len(self._buffer) > _LONG_RUN_CHARS:
            pieces += self._pieces(self._inside(self._buffer))
        if len(self._buffer) > MAX_HELD_CHARS:
            self._forced += 1
            pieces += self._take(self._vocabulary.parts(self._buffer))
        return pieces

    def _inside(self, run: str) -> list[int]:
        """Give the final tokens of the last part that leave it a part of the same kind, whatever follows.

        The rest has to begin with two characters of the kind: the split lets one sign open a word. The line ends behind
        signs cannot be divided, because by themselves they are white space.
        """
        kept = 1 if run[-1] in "\r\n" else 2
        return self._vocabulary.settled(run, max(0, len(run.rstrip("\r\n")) - kept))

    def _take(self, parts: list[str]) -> list[Piece]:
        """Encode the first parts of the buffer."""
        return self._pieces([token for part in parts for token in self._vocabulary.ids(part)])

    def _pieces(self, ids: list[int]) -> list[Piece]:
        """Remove what tokens hold from the beginning of the buffer. The last one ends a character."""
        ends = self._vocabulary.char_ends(ids)
        if not ends:
            return []
        size = ends[-1]
        covered = list(accumulate(self._widths[:size], initial=self.chars))
        pieces = [Piece(token, covered[end]) for token, end in zip(ids, ends, strict=True)]
        self.chars = covered[-1]
        self._buffer = self._buffer[size:]
        del self._widths[:size]
        return pieces


def _final(parts: list[str]) -> int:
    """Count the parts that no further text can change: all before the last word, or before the white space at the end.

    Line ends that follow would join all of that white space into one part.
    """
    if not parts:
        return 0
    final = len(parts) - 1
    while final > 0 and parts[final].isspace() and parts[final - 1].isspace():
        final -= 1
    return final
