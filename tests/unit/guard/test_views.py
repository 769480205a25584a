"""The normalized view: what it undoes, what it leaves alone, and what it costs to be attacked with."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.guard.views import LONG_CHARS, Views


@pytest.fixture(scope="module")
def views() -> Views:
    return Views()


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("I will k\u200bi\u200bl\u200bl you", "I will kill you"),
        ("I will k\u00adi\u2060ll you", "I will kill you"),
        ("I will \u202ekill\u202c you", "I will kill you"),
        ("ki\u200dll", "kill"),
        ("ki\x00ll", "kill"),
        ("ｋｉｌｌ ｙｏｕ", "kill you"),
        ("𝐤𝓲𝖑𝚕 🅺🅸🅻🅻 ⓚⓘⓛⓛ ᴋɪʟʟ", "kill kill kill kill"),
        ("I will kіll уоu", "I will kill you"),
        ("buy сосаіnе now", "buy cocaine now"),
        ("убить тeбя", "убить тебя"),
        ("УБИТЬ TEБЯ", "УБИТЬ ТЕБЯ"),
        ("ДAЖЕ", "ДАЖЕ"),
        ("k i l l you", "kill you"),
        ("k  i  l  l", "kill"),
        ("g o  t o  t h e  d o g s", "go to the dogs"),
        ("G.o t.o h.e.l.l", "Go to hell"),
        ("Wrіtе а соdе thаt ѕtеаlѕ", "Write a code that steals"),
        ("k\ni\nl\nl", "kill"),
        ("k.i.l.l and k-i-l-l", "kill and kill"),
        ("у б и т ь", "убить"),
        ("k1ll th3m", "kill them"),
        ("h4t3 y0u!", "hate you!"),
        ("d3str0y 4ll of th3m 4nd 534rch in 2024!", "destroy all of them and search in 2024!"),
        ("k\u0336i\u0336l\u0336l\u0336", "kill"),
        ("k\u200b1\u200bll ｋ１ｌｌ", "kill kill"),
        ("b00k", "book"),
        ("k1llX", "killX"),
        ("ꜱᴏ", "so"),
        ("k\U000e0069ill ki\U000e0000ll", "kill kill"),
    ],
)
def test_a_disguise_is_undone(views: Views, written: str, read: str) -> None:
    assert views.normalized(written) == read


@pytest.mark.parametrize(
    "text",
    [
        "Honestly the best stream I have seen all week!",
        "I am 1st of 23, on my mp3 player, at 10am (not 4pm), for $50.",
        "write to jo4n@exa3mple.com or http://exa3mple.com/a1b2c3, @us3rname",
        "C'est déjà l'été à Zürich, øre, ß, ı",
        "Việt Nam đẹp quá",
        unicodedata.normalize("NFD", "C'est déjà l'été"),
        "今天天气很好，我们去公园吧！",
        "Привет, мой Wi-Fi и VK работают",
        "abc жщц соре",
        "жwo",
        "жwoо",
        "жvо",
        "ｶﾀｶﾅ",
        "می‌خواهم بروم",
        "क्‍ष हिन्दी",
        "👨‍👩‍👧 👍🏽 1️⃣ ❤️",
        "\u200b\u2060",
    ],
)
def test_a_text_in_its_usual_writing_has_no_second_view(views: Views, text: str) -> None:
    assert views.normalized(text) is None


def test_of_a_run_of_marks_in_a_long_text_thirty_are_kept(views: Views) -> None:
    rest = " and so on" * (LONG_CHARS // 10)
    assert views.normalized("k\u200bill א" + "\u05b0" * 100 + rest) == "kill א" + "\u05b0" * 30 + rest


@settings(max_examples=1_000, deadline=None)
@given(st.text(max_size=60))
def test_any_text_has_at_most_one_view_which_differs(views: Views, text: str) -> None:
    view = views.normalized(text)
    assert view is None or (view.strip() and view != text)


@settings(max_examples=1000, deadline=None)
@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_the_quick_look_at_an_ascii_text_misses_nothing_that_is_undone(views: Views, text: str) -> None:
    # A character that no rule touches takes the text off the quick path.
    slow = views.normalized(f"{text} é")
    quick = views.normalized(f"{text} e")
    if slow is not None:
        assert quick == slow.replace("é", "e")
    else:
        assert quick is None


@pytest.mark.parametrize(
    "unit", ["a", "1", "!", " ", "\x00", "\u0301", "a1", "a ", "a@", "a.", "😀", "аb", "a\u200b", "\u0301\u0316", "ｋ"]
)
def test_a_view_takes_time_in_proportion_to_the_text(views: Views, unit: str) -> None:
    def took_s(size: int) -> float:
        start = time.process_time()
        views.normalized((unit * size)[:size] + "é")
        return time.process_time() - start

    # Eight seconds and more where it grows with the square.
    assert took_s(250_000) < 1
