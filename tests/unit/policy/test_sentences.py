from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.policy.sentences import Sentences


def split(text: str) -> list[str]:
    """Give the sentences that have ended, and the rest."""
    sentences, ends = Sentences(), [0]
    sentences.push(text)
    for limit in range(len(text) + 1):
        if (end := sentences.last_end(limit)) != ends[-1]:
            ends.append(end)
    return [text[start:end] for start, end in zip(ends, [*ends[1:], len(text)], strict=True)]


@pytest.mark.parametrize(
    "sentences",
    [
        ["It costs 3.14 at example.com.", " Really?!", ' "Yes."', " So it is"],
        ["你好。", "他说:「再见!。」", "好"],
        ["क्या?", " हाँ।", " ठीक"],
        ["ما هذا؟", " كتاب.", " نعم"],
        ["یہ ہے۔", " اچھا"],
        ["Բարեւ։", " Այո"],
        ["ሰላም።", " አዎ"],
        ["មែន។", " បាទ"],
        ["မြန်မာ။", " ဟုတ်"],
        ["a line\n", "\u2022 a point\n\n", "and text"],
        ["well…", " maybe"],
        ["สวัสดีครับ"],
        [""],
        ["no end."],
    ],
)
def test_sentences_end_at_the_marks_of_their_writing_system(sentences: list[str]) -> None:
    assert split("".join(sentences)) == sentences


@given(st.text("ab. !?。।\n\"'”1", max_size=40), st.lists(st.integers(0, 40), max_size=5))
def test_the_parts_of_a_text_do_not_change_its_sentences(text: str, cuts: list[int]) -> None:
    parts, whole = Sentences(), Sentences()
    whole.push(text)
    borders = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    for start, end in pairwise(borders):
        parts.push(text[start:end])
        parts.last_end(0)
    assert [parts.last_end(limit) for limit in range(len(text) + 1)] == [
        whole.last_end(limit) for limit in range(len(text) + 1)
    ]
