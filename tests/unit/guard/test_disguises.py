"""The rules of the normalized view, one by one: what each undoes, and the ordinary writing that it leaves alone."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workers.guard.disguises import (
    as_displayed,
    letters_of_flags,
    letters_of_signs,
    without_gaps,
    without_marks,
    without_stray_marks,
)

RLO, LRO, PDF, RLE, RLI, LRI, FSI, PDI = map(chr, (0x202E, 0x202D, 0x202C, 0x202B, 0x2067, 0x2066, 0x2068, 0x2069))
RLM, LRM = "\u200f", "\u200e"


def flag_letters(word: str) -> str:
    return "".join(chr(0x1F1E6 + ord(letter) - ord("a")) for letter in word)


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        (f"I will {RLO}llik{PDF} you", "I will kill you"),
        (f"{RLO}uoy llik lliw I", "I will kill you"),
        (f"{RLO}llik\nyou", "kill\nyou"),
        (f"{RLO}llik\r\n{RLO}uoy\u2029fine", "kill\r\nyou\u2029fine"),
        (f"{RLO}a{LRO}b c{PDF}d{PDF}", "db ca"),
        (f"{RLO}uoy {RLO}llik{PDF}{PDF}", "kill you"),
        (f"{RLO}llik{PDF} {RLO}uoy{PDF}", "you kill"),
        (f"I {RLI}{RLO}llik{PDF}{PDI} you", "I kill you"),
        (f"I {FSI}{RLO}llik{PDI} you", "I kill you"),
        (f"{RLI}l{RLM}l{RLM}i{RLM}k{PDI} you", "kill you"),
        (f"{RLE}you{RLM} kill{PDF}", "kill you"),
        (f"{RLO}уоь тибу{PDF}", "убит ьоу"),
        (f"{LRO}אבג{PDF}", "גבא"),
        (f"{RLO}l\u0336l\u0336i\u0336k\u0336", "kill"),
        (f"שלום {RLO}llik{PDF}", "שלום kill"),
    ],
)
def test_text_between_direction_controls_is_read_as_it_is_displayed(written: str, seen: str) -> None:
    assert as_displayed(written) == seen


@pytest.mark.parametrize(
    "text",
    [
        "I will kill you",
        "שלום עולם, 12 abc (x)",
        "مرحبا بالعالم 123",
        f"{LRO}kill{PDF} {LRI}you{PDI}",
        f"{RLE}שלום{PDF} {RLO}עולם{PDF}",
        f"{RLM}שלום!{LRM} abc",
        f"{RLM}kill אבג",
        f"{FSI}Anna{PDI} likes {FSI}משה{PDI}",
    ],
)
def test_direction_controls_that_move_no_letter_change_nothing(text: str) -> None:
    assert as_displayed(text) == text


def test_only_the_paragraph_with_the_controls_is_laid_out() -> None:
    assert as_displayed(f"שלום 12\n{RLO}llik") == "שלום 12\nkill"


@given(st.text(st.characters(codec="utf-8") | st.sampled_from([RLO, LRO, PDF, RLI, PDI, RLM, "a", "א", "1"])))
@example(f"{RLI}\u0301{PDF}")
def test_laying_out_any_text_keeps_its_letters(text: str) -> None:
    assert sorted(filter(str.isalnum, as_displayed(text))) == sorted(filter(str.isalnum, text))


@pytest.mark.parametrize(
    "gap", [*"\u00a0\u1680\u2000\u2003\u200a\u202f\u205f\u2800\u3000\t\n\r\v\f\x85\u2028\u2029", "\r\n"]
)
def test_any_space_between_single_letters_is_a_gap(gap: str) -> None:
    assert without_gaps(gap.join("kill") + " them") == "kill them"
    assert without_gaps(f"{gap}{gap}".join(gap.join(word) for word in ("kill", "them"))).split() == ["kill", "them"]


@pytest.mark.parametrize(
    ("written", "joined"),
    [
        ("k i l l you", "kill you"),
        ("k  i  l  l", "kill"),
        ("k   i   l   l", "kill"),
        ("k\u00a0i\u2003l l", "kill"),
        ("k\r\n\r\ni\r\n\r\nl\r\n\r\nl", "kill"),
        ("k\r\ni l\nl", "kill"),
        ("g o  t o  t h e  d o g s", "go to the dogs"),
        ("G.o t.o h.e.l.l", "Go to hell"),
        ("k.i.l.l and k-i-l-l", "kill and kill"),
        ("k • i • l • l", "kill"),
        ("k·i·l·l k•i•l•l k‧i‧l‧l k★i★l★l k―i―l―l", "kill kill kill kill kill"),
        ("k🔪i🔪l🔪l", "kill"),
        ("k❤️i❤️l❤️l", "kill"),
        ("k!i!l!l k|i|l|l k||i||l||l", "kill kill kill"),
        ("k--i--l--l", "kill"),
        ("у б и т ь", "убить"),
        ("k 1 l l, k.1.l.l; k\n1\n1\nl", "k1ll, k1ll; k11l"),
    ],
)
def test_single_letters_with_gaps_of_one_kind_are_joined(written: str, joined: str) -> None:
    assert without_gaps(written) == joined


@pytest.mark.parametrize(
    "text",
    [
        "I am a b c9",
        "- a thing\n- b thing\n- c thing",
        "• one\n• two\n• three",
        "a, b, c",
        "a) b) c)",
        "я и ты, и мы",
        "我 和 你 们",
        "א ב ג",
        "k.i-l l",
        "i = a * b;",
        "1 0 1, a 1 0, 1 a b",
    ],
)
def test_letters_in_lists_and_in_other_scripts_are_not_joined(text: str) -> None:
    assert without_gaps(text) == text


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("k**i**ll", "kill"),
        ("**k**ill", "kill"),
        ("ki**ll** them", "kill them"),
        ("k__i__ll", "kill"),
        ("k~~i~~ll", "kill"),
        ("k||i||ll", "kill"),
        ("||k||||i||||l||||l||", "kill"),
        ("k`i`ll", "kill"),
        ("k*i*ll", "kill"),
        ("k**`i`**ll", "kill"),
        ("k**1**ll", "k1ll"),
        ("у**би**ть", "убить"),
    ],
)
def test_markdown_inside_words_is_removed(written: str, shown: str) -> None:
    assert without_marks(written) == shown


@pytest.mark.parametrize(
    "text",
    [
        "**bold** and *it*, ~~gone~~, ||a spoiler||, `code`",
        "**a bold sentence**, __and another__.",
        "f**k, sh** and a**",
        "x**2 + y**2",
        "__init__, snake_case, user__name, a_b",
        "def f(*args, **kwargs): return `g`",
        "a || b, a||b, ~/home, ~~",
        "* one\n* two",
        "`",
    ],
)
def test_markdown_around_words_and_in_code_stays(text: str) -> None:
    assert without_marks(text) == text


@pytest.mark.parametrize(
    ("written", "spelt"),
    [
        (flag_letters("kill"), "kill"),
        (f"{flag_letters('k')}ill", "kill"),
        (" ".join(flag_letters("kill")), "k i l l"),
        ("\u200b".join(flag_letters("scum")), "s\u200bc\u200bu\u200bm"),
        (f"{flag_letters('die')} {flag_letters('de')}", f"die {flag_letters('de')}"),
    ],
)
def test_regional_indicators_are_letters(written: str, spelt: str) -> None:
    assert letters_of_flags(written) == spelt


@pytest.mark.parametrize("codes", ["de", "defr", "brbrbr", "gbeuunxk", "zwac"])
def test_flags_stay(codes: str) -> None:
    assert letters_of_flags(f"go {flag_letters(codes)}!") == f"go {flag_letters(codes)}!"


@pytest.mark.parametrize(
    ("written", "spelt"),
    [
        ("k1ll th3m", "kill them"),
        ("h4t3 y0u!", "hate you!"),
        ("d3str0y 4ll of th3m 4nd 534rch in 2024!", "destroy all of them and search in 2024!"),
        ("I am 1st of 23 at 10am", "I am 1st of 23 at 10am"),
        ("exa3mple.com is down, so be there b4 10", "exa3mple.com is down, so be there b4 10"),
        (
            "jo4n@exa3mple.com http://exa3mple.com/a1b2c3 @us3rname",
            "jo4n@exa3mple.com http://exa3mple.com/a1b2c3 @us3rname",
        ),
    ],
)
def test_digits_and_signs_inside_words_are_spelt(written: str, spelt: str) -> None:
    assert letters_of_signs(written) == spelt


def test_marks_that_belong_to_no_letter_are_removed() -> None:
    assert without_stray_marks("k\u0336i\u0336l\u20ddl\u0336 שָׁלוֹם हिन्दी") == "kill שָׁלוֹם हिन्दी"
