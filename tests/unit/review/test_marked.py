"""Characters that a browser would obey, or not show, become marks."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.review.page.marked import marked
from workers.review.page.times import moment


@given(st.text(st.characters(codec=None)))
def test_every_character_is_shown_or_marked_and_in_its_order(text: str) -> None:
    text = text.replace("\r\n", "\n")
    again = "".join(part.text or chr(int(part.mark[2:], 16)) * part.times for part in marked(text))
    assert again == text


@given(st.text(st.characters(codec=None)))
def test_no_control_and_no_change_of_direction_is_left_in_what_is_shown(text: str) -> None:
    for part in marked(text):
        for char in part.text:
            if char not in "\t\n\u200c\u200d":
                assert unicodedata.category(char) not in ("Cc", "Cs", "Co", "Zl", "Zp"), f"{ord(char):x}"
                assert unicodedata.bidirectional(char) not in (
                    "RLO",
                    "LRO",
                    "RLE",
                    "LRE",
                    "RLI",
                    "LRI",
                    "FSI",
                    "PDF",
                    "PDI",
                )


@pytest.mark.parametrize("text", ["می‌خواهم", "क्‍ष", "👨‍👩‍👧", "❤️", "naïve, שלום", "a\tb\nc"])
def test_texts_as_they_are_written_have_no_marks(text: str) -> None:
    assert [part.text for part in marked(text)] == [text]


@pytest.mark.parametrize(
    ("text", "mark", "name"),
    [
        ("a\u202eb", "U+202E", "RIGHT-TO-LEFT OVERRIDE"),
        ("a\u200bb", "U+200B", "ZERO WIDTH SPACE"),
        ("a\u200db", "U+200D", "ZERO WIDTH JOINER"),
        ("a\x1bb", "U+001B", "CONTROL CHARACTER"),
        ("a\U000e0041b", "U+E0041", "TAG LATIN CAPITAL LETTER A"),
        ("a\u3164b", "U+3164", "HANGUL FILLER"),
        ("a\ud800b", "U+D800", "LONE SURROGATE"),
        ("a\rb", "U+000D", "CONTROL CHARACTER"),
    ],
)
def test_a_hidden_character_has_its_code_and_its_name(text: str, mark: str, name: str) -> None:
    assert [(part.text, part.mark, part.name) for part in marked(text)] == [
        ("a", "", ""),
        ("", mark, name),
        ("b", "", ""),
    ]


def test_a_run_of_one_character_is_one_mark() -> None:
    assert [(part.mark, part.times) for part in marked("\u200b" * 9)] == [("U+200B", 9)]


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (1_000_000, "now"),
        (999_500, "now"),
        (940_000, "1 min ago"),
        (1_007_000, "in 7 s"),
        (1_000_000 + 2 * 86_400_000, "in 2 days"),
        (10**18, "at an unknown time"),
    ],
)
def test_a_time_is_said_in_relation_to_now(at: int, words: str) -> None:
    assert moment(at, 1_000_000).words == words
