"""Says how a tokenizer splits a text, and which of its tokens stay the same when the text goes on."""

from __future__ import annotations

import re
from bisect import bisect_right

from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

from workers.errors import Misconfigured
from workers.guard.byte_pairs import BytePairs

_FAMILY = re.compile(
    r"\(\?i:'s\|'t\|'re\|'ve\|'m\|'ll\|'d\)"
    r"\|\[\^\\r\\n\\p\{L\}\\p\{N\}\]\?(?:\\p\{L\}|\[\\p\{L\}\\p\{M\}\])\+"
    r"\|\\p\{N\}(?:\{1,3\})?"
    r"\| \?\[\^\\s\\p\{L\}(?:\\p\{M\})?\\p\{N\}\]\+\[\\r\\n\]\*"
    r"\|\\s\*\[\\r\\n\]\+\|\\s\+\(\?!\\S\)\|\\s\+"
)
"""The splitting expressions for which the borders are proven: contractions, letters (with or without marks), digits,
signs with the line ends behind them, line ends with the white space before them, white space."""


class Vocabulary:
    """A tokenizer's split and tokens. One object serves all streams."""

    def __init__(self, byte_pairs: BytePairs | None) -> None:
        """Read the borders from the tokenizer's splitting expression.

        Raises:
            Misconfigured: the tokenizer is not of Qwen's kind, so that its borders are not known.
        """
        if byte_pairs is None or not _FAMILY.fullmatch(byte_pairs.pattern):
            raise Misconfigured(
                "streams.model: text can only be encoded while it arrives with a tokenizer of Qwen's kind (byte-level "
                "BPE, NFC or no normalizer, Qwen's splitting expression); this tokenizer.json is of another kind"
            )
        self.has_nfc = byte_pairs.has_nfc
        self._encoding = byte_pairs.encoding
        # Not by `regex`: its classes of characters are of a later version of Unicode, and 17,480 characters differ.
        self._split = Split(Regex(byte_pairs.pattern), "isolated")
        self._words = sorted(self._encoding.token_byte_values())
        self._longest = max(map(len, self._words))

    def parts(self, text: str) -> list[str]:
        """Split a text into the parts that are encoded each by itself."""
        return [part for part, _ in self._split.pre_tokenize_str(text)]

    def ids(self, part: str) -> list[int]:
        """Encode one part."""
        return self._encode(part.encode())

    def bytes_of(self, token: int) -> bytes:
        """Return the UTF-8 bytes that a token stands for. They may end inside a character."""
        return self._encoding.decode_single_token_bytes(token)

    def char_ends(self, ids: list[int]) -> list[int]:
        """Give for each token how many whole characters the tokens up to it hold.

        The last token has to end a character.
        """
        if not ids:
            return []
        text, starts = self._encoding.decode_with_offsets(ids)
        return [*starts[1:], len(text)]

    def settled(self, part: str, most_chars: int) -> list[int]:
        """Give the first tokens of a part that stay the same however the part goes on.

        They hold whole characters, and at most so many.

        In the final encoding, some token holds the present end or ends there. The text before that token is encoded as
        if it were all. So all encodings are made that end where such a token can begin, and the tokens that are common
        to all of them are final.
        """
        written = part.encode()
        common = self._encode(written)
        for start in range(max(0, len(written) - self._longest + 1), len(written)):
            if self._can_continue(written[start:]):
                common = _common(common, self._encode(written[:start]) if start else [])
                if not common:
                    return []
        return common[: self._whole(common, written, len(part[:most_chars].encode()))]

    def _whole(self, ids: list[int], written: bytes, most: int) -> int:
        """Count the first tokens that together end a character, in at most so many bytes."""
        end = whole = 0
        for index, token in enumerate(ids, 1):
            end += len(self._encoding.decode_single_token_bytes(token))
            if end > most:
                break
            if end == len(written) or written[end] & 0xC0 != 0x80:
                whole = index
        return whole

    def _can_continue(self, beginning: bytes) -> bool:
        """Whether a token begins with these bytes and is longer."""
        index = bisect_right(self._words, beginning)
        return index < len(self._words) and self._words[index].startswith(beginning)

    def _encode(self, written: bytes) -> list[int]:
        # Private, and the only method that encodes bytes which are not UTF-8. The tests compare with `tokenizers`.
        return list(self._encoding._encode_single_piece(written))


def _common(one: list[int], other: list[int]) -> list[int]:
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return one[:index]
    return one[: len(other)]
