"""Two tokenizers from one file: one for the template's fixed parts, and one without control tokens for content."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from msgspec import json
from tokenizers import Tokenizer

from workers.errors import Misconfigured
from workers.guard.byte_pairs import MAX_CHARS, byte_pairs


class Tokens:
    """Token ids of a checkpoint.

    Guarantee: `content` never returns the id of an added token (special or not), whatever the text holds.

    Attributes:
        byte_pairs: the quick encoder of contents; None if the tokenizer is of another kind.
        control: the ids of the added tokens.
        control_words: the texts of the added tokens.
        size: the number of ids, those of added tokens included.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        try:
            written = path.read_bytes()
            document = json.decode(written)
            self._fixed = Tokenizer.from_buffer(written)
            self.control = frozenset(int(token["id"]) for token in document.get("added_tokens", ()))
            self.control_words = words = frozenset(str(token["content"]) for token in document.get("added_tokens", ()))
            # Without the list of added tokens, their texts are ordinary characters, which the pre-tokenizer splits.
            document["added_tokens"] = []
            document["post_processor"] = None
            vocabulary = document["model"]["vocab"]
            document["model"]["vocab"] = {word: index for word, index in vocabulary.items() if word not in words}
            self.byte_pairs = byte_pairs(document)
            self._without_control = json.encode(document)
            if self.byte_pairs is None:
                self._content  # noqa: B018  Made now: a broken file has to end the start.
        except FileNotFoundError:
            raise Misconfigured(f"guard.model: {folder} has no tokenizer.json") from None
        except Exception as error:
            raise Misconfigured(f"guard.model: {path} is broken: {error}") from error
        self.size = self._fixed.get_vocab_size()

    @cached_property
    def _content(self) -> Tokenizer:
        """Made at the first text that needs it: that takes as long as all else here, and many workers never need it."""
        return Tokenizer.from_buffer(self._without_control)

    def fixed(self, text: str) -> list[int]:
        """Encode a part of the template, control tokens included."""
        return list(self._fixed.encode(text, add_special_tokens=False).ids)

    def content(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode contents. Runs in Rust without the GIL."""
        quick = self.byte_pairs
        if quick is None:
            return self._slow(texts)
        if max(map(len, texts), default=0) <= MAX_CHARS:
            return quick(texts)
        short = iter(quick([text for text in texts if len(text) <= MAX_CHARS]))
        return [next(short) if len(text) <= MAX_CHARS else self._slow([text])[0] for text in texts]

    def _slow(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._content.encode_batch_fast(list(texts), add_special_tokens=False)]

    def text(self, ids: Sequence[int]) -> str:
        """Decode ids. Special tokens are skipped."""
        return str(self._fixed.decode(list(ids), skip_special_tokens=True))

    def first(self, words: Sequence[str]) -> list[int]:
        """Return the first token of each word after a space.

        Raises:
            Misconfigured: a word has no token, or two words have the same first token, so that one forward pass could
                not tell them apart.
        """
        encoded = [self.fixed(f" {word}") for word in words]
        if missing := [word for word, tokens in zip(words, encoded, strict=True) if not tokens]:
            raise Misconfigured(f"guard.model: this tokenizer has no tokens for labels: {', '.join(missing)}")
        ids = [tokens[0] for tokens in encoded]
        if len(set(ids)) != len(ids):
            shared = {word: index for word, index in zip(words, ids, strict=True) if ids.count(index) > 1}
            raise Misconfigured(
                f"guard.model: this tokenizer does not tell labels apart by their first token: {shared}"
            )
        return ids
