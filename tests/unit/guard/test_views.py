"""The normalized view: what it undoes, what it leaves alone, and what it costs to be attacked with."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import example, given
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
        ("I will \u202dkill\u202c you", "I will kill you"),
        ("I will \u202ellik\u202c you", "I will kill you"),
        ("ki\u200dll", "kill"),
        ("ki\x00ll", "kill"),
        ("ｋｉｌｌ ｙｏｕ", "kill you"),
        ("𝐤𝓲𝖑𝚕 🅺🅸🅻🅻 ⓚⓘⓛⓛ ᴋɪʟʟ", "kill kill kill kill"),
        ("I will kіll уоu", "I will kill you"),
        ("ІSІS КILL", "ISIS KILL"),
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
        ("k\u00a0i\u2800l\u3000l", "kill"),
        ("k\r\ni\r\nl\r\nl", "kill"),
        ("k\r\n\r\ni\r\n\r\nl\r\n\r\nl", "kill"),
        ("“k•i•l•l” k🔪i🔪l🔪l", "“kill” kill"),
        ("k**1**ll", "kill"),
        ("ki||l||l", "kill"),
        ("k_i_l_l k~i~l~l", "kill kill"),
        ("k   i   l   l", "kill"),
        ("k - i - l - l", "kill"),
        ("k 1 l", "kil"),
        ("привет, с**r**ack", "привет, crack"),
        ("жжжжжж оо b00k b00k", "жжжжжж oo book book"),
        ("||k||||i||||l||||l||", "kill"),
        ("🇰 🇮 🇱 🇱", "kill"),
        ("🇰\u200b🇮\u200b🇱\u200b🇱", "kill"),
        ("\u202el\u200blⓘk", "kill"),
        ("\u202el l 1 k", "kill"),
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
        "🇩🇪🇫🇷 vs 🇧🇷🇧🇷🇧🇷",
        "**bold**, *it*, ~~gone~~, ||spoiler||, `code` and f**k",
        "def f(*args, **kwargs):\r\n\treturn snake_case + user__name ** 2  # `x`",
        "if (a || b) { return c[0] | d; }",
        "1. one\r\n2. two\r\n\r\n• one\r\n• two\n- a thing\n- another",
        "« Bonjour\u00a0! »\u00a0— ça\u202f: l’été… 10\u202f000\u00a0€",
        "今天　天气・很好",
        "שלום, מה שלומך? 12 ק״ג ב־3 ימים",
        "مرحبًا، كيف حالك؟ 123 (abc)",
        "😀 😀 😀 a 😀",
    ],
)
def test_a_text_in_its_usual_writing_has_no_second_view(views: Views, text: str) -> None:
    assert views.normalized(text) is None


def test_of_a_run_of_marks_in_a_long_text_thirty_are_kept(views: Views) -> None:
    rest = " and so on" * (LONG_CHARS // 10)
    assert views.normalized("k\u200bill א" + "\u05b0" * 100 + rest) == "kill א" + "\u05b0" * 30 + rest


@given(st.text(max_size=60))
def test_any_text_has_at_most_one_view_which_differs(views: Views, text: str) -> None:
    view = views.normalized(text)
    assert view is None or (view.strip() and view != text)


# Every character that a rule is about, letters to put between, and any other letter or number. A few that the quick
# look takes for signs are left out, by the first of their bytes.
PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [*"abkil013457@$!|.*_~`-/ \t\r\n", "**", "__", "||", "  ", "\r\n", "k i l l", "k**i**ll", "🇰", "🇩🇪"]
        ),
        st.sampled_from(
            [*"аіоюλ", "é", "e\u0301", "\u0336", "\u200b", "\u200d", "\ufe0f", "ｋ", "𝐤", "ⓚ", "א", "م", "中"]
        ),
        st.sampled_from(
            [*"\u00a0\u2003\u2800\u3000\u1680•·・–“”’…😀❤", "\u202e", "\u202d", "\u202c", "\u2067", "\u2069", "\u200f"]
        ),
        st.characters(categories=("L", "N")).filter(lambda one: one.encode()[0] not in (0xC2, 0xE2, 0xF0)),
    ),
    max_size=25,
).map("".join)


@given(PIECES)
@example("@k i l la")
@example("la k i l@")
def test_the_quick_look_misses_nothing_that_is_undone(views: Views, text: str) -> None:
    composed = unicodedata.normalize("NFC", text)
    read = views.read(composed)
    assert views.normalized(text) == (None if read == composed or not read.strip() else read)


@given(PIECES)
def test_a_view_has_no_view_of_its_own(views: Views, text: str) -> None:
    view = views.normalized(text)
    assert view is None or views.normalized(view) is None


ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyzäéñøß",
    "абвгдежзийклмнопрстуфхцчшщъыьэюяёі",
    "αβγδεζηθικλμνξοπρστυφχψωάέ",
    "אבגדהוזחטיכלמנסעפצקרשתםןץףך",
    "ابتثجحخدذرزسشصضطظعغفقكلمنهويةىءؤئ",
    "कखगघचछजझटठडढतथदधनपफबभमयरलवशषसह",
    "กขคงจฉชซญดตถทธนบปผฝพฟภมยรลวศษสหอฮ",
    "今天气很好我们去公园吧的是不了人在有他这",
    "あいうえおかきくけこさしすせそアイウエオカキ",
    "가나다라마바사아자차카타파하한글",
]


@given(st.data())
def test_words_of_one_script_in_ordinary_sentences_have_no_second_view(views: Views, data: st.DataObject) -> None:
    script = data.draw(st.sampled_from(ALPHABETS))
    # Three lone letters in a row would be a word that is spaced out.
    words = st.lists(st.text(st.sampled_from(script), min_size=2, max_size=9), min_size=1, max_size=12)
    ends = st.sampled_from(
        [" ", ", ", ". ", "! ", "\n", " - ", ": ", "\n- ", "\n• ", " (", ") ", " 24 ", " — ", "… ", "_"]
    )
    text = "".join(word + data.draw(ends) for word in data.draw(words))
    assert views.normalized(text) is None


@pytest.mark.parametrize(
    "unit",
    [
        *("a", "1", "!", " ", "\x00", "\u0301", "a1", "a ", "a@", "a.", "😀", "аb", "a\u200b", "\u0301\u0316", "ｋ"),
        *(
            "*",
            "a*",
            "a**b",
            "a`",
            "||",
            "a || ",
            "_",
            "a\u00a0",
            "a•",
            "a\r\n",
            "🇰",
            "🇩🇪",
            "a 🇰 ",
            "\u202e",
            "\u202ea",
        ),
        *("\u2067", "\u202ea\u202c", "\u2067a\u2069 ", "\u202e(א)", "\n\u202ea", "a(\u202e"),
    ],
)
def test_a_view_takes_time_in_proportion_to_the_text(views: Views, unit: str) -> None:
    def took_s(size: int) -> float:
        start = time.process_time()
        views.normalized((unit * size)[:size] + "é")
        return time.process_time() - start

    # Five seconds and more where it grows with the square.
    assert took_s(100_000) < 2.5
