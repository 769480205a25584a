"""The quick encoder gives the ids of the `tokenizers` library, or stands aside."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from workers.guard.byte_pairs import BORDER, MAX_CHARS, byte_pairs
from workers.guard.load import checkpoint_folder
from workers.guard.tokens import Tokens

FOLDER = checkpoint_folder("guard-nano")


def plain_document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["content"] for token in document["added_tokens"]}
    vocabulary = document["model"]["vocab"]
    document["model"]["vocab"] = {word: index for word, index in vocabulary.items() if word not in added}
    return document | {"added_tokens": [], "post_processor": None}


QUICK = byte_pairs(plain_document())
REFERENCE = Tokenizer.from_str(json.dumps(plain_document()))

# Words and signs between which byte pairs and splits have most to get wrong, beside any character at all.
TEXT = st.lists(
    st.one_of(
        st.sampled_from(
            ["'s", "don't", "  ", "\r\n", "\n\n", "\t", "e\u0301", "\u1100\u1161", "12345", "👍🏽", "\u200d", "कि"]
        ),
        st.sampled_from(["the", "quick", "brown", "fox", "говорит", "今天天气很好", "مرحبا", "schön"]),
        st.text(max_size=8),
    ),
    max_size=30,
).map("".join)


@given(st.lists(TEXT, max_size=4))
def test_the_quick_encoder_gives_the_ids_of_the_library(texts: list[str]) -> None:
    assert QUICK is not None
    assert QUICK(texts) == [REFERENCE.encode(text, add_special_tokens=False).ids for text in texts]


@pytest.mark.parametrize("placement", ["{}", "a{}b", "{0}{0}", "{} \n\n"])
def test_a_text_that_guesses_the_border_between_texts_is_encoded_as_any_other(placement: str) -> None:
    assert QUICK is not None
    texts = ["before", placement.format(BORDER), "", "behind"]
    assert QUICK(texts) == [REFERENCE.encode(text, add_special_tokens=False).ids for text in texts]


def test_no_token_of_the_vocabulary_is_taken_for_the_border_between_texts() -> None:
    """Whoever wrote such a token would shift the texts behind his own: each would get another's verdict."""
    assert QUICK is not None
    texts = [REFERENCE.decode([index]) for index in plain_document()["model"]["vocab"].values()]
    assert QUICK(texts) == [encoding.ids for encoding in REFERENCE.encode_batch(texts, add_special_tokens=False)]


def test_a_long_run_of_spaces_is_encoded_by_the_library() -> None:
    # tiktoken panics on it.
    spaces = " " * 1_000_000
    assert Tokens(FOLDER).content([spaces, "a"]) == [
        REFERENCE.encode(text, add_special_tokens=False).ids for text in (spaces, "a")
    ]


def test_the_longest_quick_text_may_be_a_run_of_anything() -> None:
    assert QUICK is not None
    for character in " \n\t.1a\u0301中😀\x00":
        text = character * MAX_CHARS
        assert QUICK([text]) == [REFERENCE.encode(text, add_special_tokens=False).ids]


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFKC"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": None},
        {"model": {"type": "Unigram", "vocab": {}, "merges": []}},
        {"model": plain_document()["model"] | {"ignore_merges": True}},
        {"model": plain_document()["model"] | {"merges": plain_document()["model"]["merges"][::-1]}},
        {"model": plain_document()["model"] | {"merges": plain_document()["model"]["merges"][1:]}},
    ],
)
def test_tokenizers_of_another_kind_have_no_quick_encoder(change: dict[str, Any]) -> None:
    assert byte_pairs(plain_document() | change) is None
