"""Gives each text a SimHash: 64 bits, of which few differ between nearly equal texts. Pure.

A SimHash (Charikar, Similarity Estimation Techniques from Rounding Algorithms, 2002) adds up the bits of a text's
features. Here the features are its letters and its pairs of neighbouring letters. The bits of a letter are secret, so
that nobody without the secret can compute the SimHash of a guessed text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from hashlib import shake_256

import numpy as np
from numpy.typing import NDArray

MIN_LENGTH = 16
"""A shorter text has no SimHash: greetings are equal without being copies. Letters count 1. Ideographs, syllables of
Hangul, kana and emoji count 2, because they say as much as two letters."""

MAX_CHARS = 2_000
"""Only the beginning of a longer text counts, so that one text never holds up the others of its micro-batch."""

BITS = 64

_WIDE = 0x2E80
"""The first code point that counts 2."""
_OTHERS = 0x1FFFF
"""Stands for all ideographs from here on, which are rare."""
_TAGS = 0xE0000
"""From here on code points are invisible or private."""
_VARIANTS = range(0xFE00, 0xFE10)
"""Marks that choose how a letter looks."""
_SYLLABLES = range(0xAC00, 0xD7A4)
"""Hangul, which is not divided into its letters."""

_ROTATION = np.uint64(29)
"""Gives the first letter of a pair other bits than the second one: `ab` is another pair than `ba`."""
_LANES = 16
_LANE_BITS = np.uint64(0x0001_0001_0001_0001)
"""Selects 4 of 64 bits. In a sum each has a counter of 16 bits, enough for the features of `MAX_CHARS` characters."""

_Codes = NDArray[np.uint32]
_Words = NDArray[np.uint64]


class SimHashes:
    """Computes SimHashes with one secret."""

    def __init__(self, secret: str) -> None:
        self._letters, self._signs = _tables()
        bits = shake_256(b"similarity\0" + secret.encode()).digest((_OTHERS + 1) * 8)
        self._bits = np.frombuffer(bits, np.dtype("<u8")).astype(np.uint64)

    def of(self, texts: Sequence[str]) -> list[str | None]:
        """Return the SimHash of each text in 16 hexadecimal digits; None for one that is shorter than `MIN_LENGTH`.

        Case, accents, spaces, punctuation, digits and repetitions of a letter change nothing. Emoji and other signs
        count only in a text without letters. All texts are one call to numpy, because a call takes as long for a
        micro-batch as for one text.
        """
        found: list[str | None] = [None] * len(texts)
        letters, owners = self._letters_of(texts)
        if not len(letters):
            return found
        begins = np.ones(len(letters), bool)
        begins[1:] = owners[1:] != owners[:-1]
        starts = np.flatnonzero(begins)
        sizes = np.bincount(owners, 1 + (letters >= _WIDE), len(texts))
        ones = self._bits[letters]
        pairs = ones.copy()
        pairs[1:] ^= (ones[:-1] << _ROTATION) | (ones[:-1] >> (np.uint64(BITS) - _ROTATION))
        pairs[begins] = 0  # The first letter of a text has no letter before it.
        features = 2 * np.diff(starts, append=len(letters)) - 1
        hashes = _majorities(ones, pairs, starts, features)
        for owner, value in zip(owners[starts].tolist(), hashes, strict=True):
            if sizes[owner] >= MIN_LENGTH:
                found[owner] = f"{value:016x}"
        return found

    def _letters_of(self, texts: Sequence[str]) -> tuple[_Codes, NDArray[np.intp]]:
        """Return the letters that count, of all texts one after the other, and the number of the text of each."""
        cut = [text[:MAX_CHARS] for text in texts]
        codes = np.frombuffer("".join(cut).encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
        owners = np.repeat(np.arange(len(cut)), [len(text) for text in cut])
        shown = codes < _TAGS
        codes, owners = np.minimum(codes[shown], _OTHERS), owners[shown]
        letters = self._letters[codes]
        has_letters = np.bincount(owners, letters > 0, len(cut)) > 0
        letters = np.where(has_letters[owners], letters, self._signs[codes])
        counts = letters > 0
        letters, owners = letters[counts], owners[counts]
        differs = np.ones(len(letters), bool)
        differs[1:] = (letters[1:] != letters[:-1]) | (owners[1:] != owners[:-1])
        return letters[differs], owners[differs]


def _majorities(ones: _Words, pairs: _Words, starts: NDArray[np.intp], features: NDArray[np.intp]) -> list[int]:
    """Return the 64 bits of each text that more than half of its features have."""
    sums = np.empty((_LANES, len(starts)), np.uint64)
    for lane in range(_LANES):
        shift = np.uint64(lane)
        sums[lane] = np.add.reduceat(((ones >> shift) & _LANE_BITS) + ((pairs >> shift) & _LANE_BITS), starts)
    # Bit `lane + 16 * part` of a word is counted in part `part` of its sum.
    parts = [(sums >> np.uint64(_LANES * part)) & np.uint64(0xFFFF) for part in range(BITS // _LANES)]
    counts = np.concatenate(parts).T
    packed = np.packbits(2 * counts.astype(np.int64) > features[:, None], axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


@cache
def _tables() -> tuple[_Codes, _Codes]:
    """Return for each code point the letter for which it stands, and the sign for which it stands; 0: none."""
    letters, signs = np.zeros(_OTHERS + 1, np.uint32), np.zeros(_OTHERS + 1, np.uint32)
    letters[_OTHERS] = _OTHERS
    for code in range(_OTHERS):
        folded = unicodedata.normalize("NFKC", chr(code)).casefold()
        if ord(folded[0]) not in _SYLLABLES:
            folded = unicodedata.normalize("NFD", folded)
        letter, kind = folded[0], unicodedata.category(folded[0])
        # Accents have a combining class. The vowel signs of Indic scripts and Thai have none, and count as letters.
        is_vowel_sign = kind[0] == "M" and not unicodedata.combining(letter) and ord(letter) not in _VARIANTS
        if kind[0] == "L" or is_vowel_sign:
            letters[code] = min(ord(letter), _OTHERS)
        elif kind in ("Nd", "Sc", "Sk", "Sm", "So"):
            signs[code] = ord(letter)
    return letters, signs
