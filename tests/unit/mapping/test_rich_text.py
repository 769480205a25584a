from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.mapping.rich_text import Piece, from_html, from_markdown, from_plain, from_slack


def shown(pieces: list[Piece]) -> str:
    return "\n".join(f"> {piece.text}" if piece.is_quote else piece.text for piece in pieces)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<p>I will f&#105;nd you and k<b></b>ill you</p>", "I will find you and kill you"),
        ("<p>one</p>\n<p>two<br>three</p>", "one\ntwo\nthree"),
        ("a  b\n c", "a b c"),
        ("I <3 you </3 and 1 < 2 > 0", "I <3 you </3 and 1 < 2 > 0"),
        ("x <b", "x <b"),
        ("a<!-- hidden -->b <!-- not closed", "ab <!-- not closed"),
        ("<SCRIPT>no</script>yes<style>p{}</style>", "yes"),
        ("<style>never closed", "never closed"),
        ("hi<title>I will kill you</title><template>and you</template>", "hi\nI will kill you\nand you"),
        ("<head>I will</head> find you", "I will find you"),
        ('<img src=x alt="a > b">', 'a b">'),
        ("<img alt='kill you' title=now>", "kill you now"),
        ("<blockquote>yours</blockquote>mine", "> yours\nmine"),
        ("<mx-reply><blockquote>yours</blockquote></mx-reply>mine", "> yours\nmine"),
        ("</blockquote>mine", "mine"),
        (f"a&#{'9' * 5000};b&#x110000;", "a\ufffdb\ufffd"),
        (f"k&#0000000105;ll &#x{'0' * 5000}79;ou &#99999999;", "kill you \ufffd"),
        ("&lt;b&gt; &amp;amp;", "<b> &amp;"),
    ],
)
def test_html_is_what_a_browser_shows(text: str, expected: str) -> None:
    assert shown(from_html(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I will **find** you and k**i**ll you ||now||", "I will find you and kill you now"),
        ("***very*** ~~not~~ `code` __init__ _so_", "very not code init so"),
        ("k__i__ll k||i||ll k~~i~~ll k`i`ll", "kill kill kill kill"),
        ("f**k this s**t", "f**k this s**t"),
        ("2 * 3 * 4 and a_b_c", "2 * 3 * 4 and a_b_c"),
        (r"¯\_(ツ)_/¯ \*stars\*", "¯_(ツ)_/¯ *stars*"),
        ("# Title\n-# small\n#hashtag", "Title\nsmall\n#hashtag"),
        ("```python\nx = 1\n```", "python\nx = 1"),
        ('[label](https://a.example "title") ![alt](b)', "label (https://a.example title) alt (b)"),
        ("[https://a.example](https://a.example)", "https://a.example"),
        ('[a]: <b> "I will kill you"', '[a]: <b> "I will kill you"'),
        ("> yours\n> > theirs\nmine", "> yours\ntheirs\nmine"),
        (">!spoiler!< and !<3", "spoiler and !<3"),
        ("&gt; yours\n\nmine &amp; ours", "> yours\nmine & ours"),
    ],
)
def test_markdown_loses_its_marks_and_none_of_its_words(text: str, expected: str) -> None:
    assert shown(from_markdown(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<@U1|ann> <@U2> <#C1|garden> <!here>", "@ann @U2 #garden @here"),
        ("<https://a.example|label> <https://b.example>", "label (https://a.example) https://b.example"),
        ("<!date^1^{date}|1 January>", "1 January"),
        ("*k*_i_ ~now~ &lt;b&gt;", "ki now <b>"),
        ("&gt; yours\nmine", "> yours\nmine"),
    ],
)
def test_the_marks_of_slack_become_text(text: str, expected: str) -> None:
    assert shown(from_slack(text)) == expected


def test_lines_that_begin_with_a_bracket_are_quotes_in_plain_text() -> None:
    assert shown(from_plain("> yours\n> yours, too\nmine > yours")) == "> yours\nyours, too\nmine > yours"


MARKS = [
    " ",
    "\n",
    "<",
    ">",
    "</",
    "!",
    "-",
    "&",
    "#",
    ";",
    "*",
    "**",
    "_",
    "__",
    "~~",
    "||",
    "`",
    "\\",
    "[",
    "](",
    ")",
    '"',
    ">!",
    "!<",
]


@given(st.lists(st.sampled_from(MARKS), max_size=12))
def test_no_word_is_lost_between_any_marks(marks: list[str]) -> None:
    words = [f"w{number}" for number in range(len(marks) + 1)]
    text = "".join(part for pair in zip(words, [*marks, ""], strict=True) for part in pair)
    for convert in (from_markdown, from_plain):
        found = shown(convert(text))
        assert all(word in found for word in words)
    from_html(text)
    from_slack(text)


HOSTILE = [
    *((from_html, part) for part in ("<", "<a", "<!--", "<b id=1>", "<script>", "<blockquote>", '<img alt="', "&#1;")),
    *((from_markdown, part) for part in ("[", "[](", "**a", "a**", "_a", "`a", "a* ", "f**k s**t ", "\\*", "> ", ">!")),
    *((from_slack, part) for part in ("<a|", "<", "*a **a ")),
]


@pytest.mark.parametrize(("convert", "part"), HOSTILE)
def test_the_time_for_a_hostile_text_is_proportional_to_its_length(
    convert: Callable[[str], list[Piece]], part: str
) -> None:
    # Text is searched so quickly that a search from each tag to the end shows only in a long one.
    lengths = (20_000, 200_000) if part in ("<a", "<!--") else (2_000, 20_000)

    def took_s(length: int) -> float:
        text = part * (length // len(part))
        begun = time.process_time()
        convert(text)
        return time.process_time() - begun

    # Ten times the text takes ten times the time. With a quadratic algorithm it takes a hundred times.
    short, long = (min(took_s(length) for _ in range(2)) for length in lengths)
    assert long < 40 * short + 0.02


PREFIXES: list[tuple[Callable[[str], list[Piece]], str]] = [
    (from_html, "& &# &#x < </ <!-- <a <a></ <script> </script <img_alt <img_alt="),
    (from_markdown, "[ ![ [] []( [](< [](a> [](a [a](a_( > __# ~~~ *a **a >!"),
    (from_slack, "< <@ <! <a| *a &lt;"),
]
"""What begins the parts of each pattern, with `_` for a space."""

RUNS = [" ", "\n", "a", "a ", " >", "0", "&", "<", "*a", "[", ">", "-"]


@pytest.mark.parametrize(("convert", "prefixes"), PREFIXES)
def test_the_time_for_a_long_run_behind_the_beginning_of_a_mark_is_proportional_to_its_length(
    convert: Callable[[str], list[Piece]], prefixes: str
) -> None:
    def took_s(prefix: str, run: str, length: int) -> float:
        part = run * (length // len(run) // 3)
        # A run, and one that other characters divide: each pattern with several repeats has parts for both.
        texts = (prefix + part * 3, prefix + part + "b" * len(part) + part)
        begun = time.process_time()
        for text in texts:
            convert(text)
        return time.process_time() - begun

    for prefix in (one.replace("_", " ") for one in prefixes.split()):
        for run in RUNS:
            assert took_s(prefix, run, 300) < 0.05, (prefix, run)
            # On a busy machine a single run may take any time.
            pairs = ((took_s(prefix, run, 3_000), took_s(prefix, run, 1_500)) for _ in range(5))
            assert any(long < max(0.01, 4 * half) for long, half in pairs), (prefix, run)


def test_the_time_for_runs_of_stars_of_each_length_is_proportional_to_the_text() -> None:
    """Each length waits for its end over half of the text."""

    def took_s_per_char(count: int) -> float:
        text = "".join("*" * length + "a" for length in range(1, count)) * 2
        begun = time.process_time()
        from_markdown(text)
        return (time.process_time() - begun) / len(text)

    assert took_s_per_char(700) < 3 * min(took_s_per_char(100) for _ in range(3))
