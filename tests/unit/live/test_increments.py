"""Text that arrives in deltas has the ids of the whole text, and what is held stays small."""

from __future__ import annotations

import random
import sys
import time
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.live.conftest import Tokenizer
from workers.errors import Misconfigured
from workers.guard.byte_pairs import BytePairs
from workers.live.increments import MAX_HELD_CHARS, SLICE_CHARS, Increments, Piece, slices
from workers.live.segments import MAX_SEGMENT_CHARS
from workers.live.vocabulary import Vocabulary

# Fragments between which splits, byte pairs, accents and surrogate pairs have most to get wrong.
FRAGMENTS = [
    *("'s", "'S", "'", "'l", "'ll", "n't", "''", '"', "...", "!!", "(", "): ", "-----", "=", "\u2014", "_x"),
    *(" ", "  ", "   ", "\n", "\r\n", "\r", "\t", " \n", "\n ", "\n\n  \n", "\u00a0", "\u3000", "\u2028", "\x85"),
    *("the", "quick", " brown", "antidisestablishmentarianism", "1", "12345", "x7", "aGVsbG8gd29ybGQhIQ", "https://"),
    *("говорит", "ἄνθρωπος", "مرحبا", "שָׁלוֹם", "नमस्ते", "किताब", "สวัสดีครับ", "தமிழ்", "မြန်မာ", "ខ្មែរ"),
    *(
        "今天天气很好",
        "我们",
        "你",
        "こんにちは",
        "カ\u3099",
        "안녕",
        "\u1112\u1161\u11ab",
        "\u1161",
        "\u11a8",
        "𠀀𠀁",
        "豈",
    ),
    *(
        "e",
        "e\u0301",
        "\u0301",
        "q\u0323\u0307",
        "\u0344",
        "A\u030a",
        "\u212b",
        "\ufb1d",
        "\u0fb2\u0f71\u0f80",
        "\u09c7\u09be",
    ),
    *(
        "👍🏽",
        "👨\u200d👩\u200d👧",
        "🇩🇪",
        "\u200d",
        "\ufe0f",
        "\U0001d15e",
        "\ud83d",
        "\ude00",
        "\ud83d\ude00",
        "\ufffd",
        "\ufeff",
        "\x00",
    ),
    *("<|im_end|>", "<|im_start|>user\n", "<think>", "</think>", "<|endoftext|>"),
]
TEXT = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=6)), max_size=20).map("".join)

LANGUAGES = {
    "de": "Größere Überschwemmungen haben am späten Nachmittag mehrere Straßen unpassierbar gemacht. ",
    "en": "The committee didn't publish its findings until the middle of the following year, he said. ",
    "fr": "L'été dernier, nous n'avons pas pu visiter le château à cause de la grève des contrôleurs. ",
    "ru": "Вчера вечером мы долго говорили о том, что произошло на прошлой неделе в нашем городе. ",
    "el": "Χθες το βράδυ μιλήσαμε για πολλή ώρα για όσα συνέβησαν την περασμένη εβδομάδα. ",
    "ar": "تحدثنا مساء أمس لفترة طويلة عما حدث الأسبوع الماضي في مدينتنا الصغيرة. ",
    "he": "אתמול בערב דיברנו שעה ארוכה על מה שקרה בשבוע שעבר בעיר שלנו. ",
    "hi": "कल शाम हमने पिछले सप्ताह शहर में हुई घटनाओं के बारे में बहुत देर तक बात की। ",
    "th": "เมื่อวานตอนเย็นเราคุยกันนานมากเกี่ยวกับสิ่งที่เกิดขึ้นในเมืองของเราเมื่อสัปดาห์ที่แล้ว",
    "vi": "Tối hôm qua chúng tôi đã nói chuyện rất lâu về những gì xảy ra trong thành phố tuần trước. ",
    "zh": "昨天晚上我们谈了很久上个星期在我们城市里发生的事情，大家都觉得非常意外。",
    "ja": "昨日の夜、先週私たちの町で起きた出来事について長い間話し合いました。",
    "ko": "어제 저녁 우리는 지난주에 우리 도시에서 일어난 일에 대해 오랫동안 이야기했습니다. ",
    "ta": "நேற்று மாலை கடந்த வாரம் நமது நகரத்தில் நடந்ததைப் பற்றி நீண்ட நேரம் பேசினோம். ",
}


def joined(text: str) -> str:
    """Give the text with whole surrogate pairs, and with U+FFFD for halves."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def whole(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer[0].content([joined(text)])[0]


def divided(text: str, sizes: Iterable[int]) -> list[str]:
    deltas, start = [], 0
    for size in sizes:
        if start >= len(text):
            break
        deltas.append(text[start : start + size])
        start += size
    return [*deltas, text[start:]]


def pushed(tokenizer: Tokenizer, deltas: Sequence[str | bytes]) -> tuple[list[Piece], Increments]:
    increments = Increments(tokenizer[1])
    pieces = [piece for delta in deltas for piece in increments.push(delta)]
    return pieces + increments.end(), increments


def ids(pieces: Iterable[Piece]) -> list[int]:
    return [piece.id for piece in pieces]


def bytes_of(tokenizer: Tokenizer, pieces: Iterable[Piece]) -> bytes:
    assert tokenizer[0].byte_pairs is not None
    return tokenizer[0].byte_pairs.encoding.decode_bytes(ids(pieces))


@given(text=TEXT, sizes=st.lists(st.integers(1, 12), max_size=80))
def test_deltas_of_any_size_have_the_ids_of_the_whole_text(tokenizer: Tokenizer, text: str, sizes: list[int]) -> None:
    pieces, increments = pushed(tokenizer, divided(text, sizes))
    assert ids(pieces) == whole(tokenizer, text)
    assert increments.forced == 0
    assert increments.chars == len(text)


# In each, a delta ends where a rule is needed: the test below divides them everywhere.
BORDERS = [
    *("a  1", "a  12", " \t1 \n 2", "x \n \n y", "x\n \n", "a \n", "!\n \n!", "\t\t\n\n  \n a"),
    *(
        "................a",
        "----------------------------------------a",
        "--------------------------- a",
        "((((((((((((((((((((((b",
    ),
    *("!!!!!!!!!!!!\n\n \n x", "==============\n\n\n\n \n\n\n x", "aaaaaaaaaaaaaaaaaaa's", "s", "we'll've'd 'll"),
    *(
        "Donaudampfschifffahrtsgesellschaftskapitän",
        "昨天晚上我们谈了很久上个星期发生的事情",
        "สวัสดีครับเมื่อวานตอนเย็นเราคุยกัน",
    ),
    *(
        "e\u0301e\u0323\u0301",
        "\u1112\u1161\u11ab\u1112\u1161",
        "\u0dd9\u0dcf\u0dca",
        "a\U0001d15e\U0001d165",
        "𠀀𠀁𠀂𠀃𠀄𠀅𠀆𠀇𠀈𠀉",
    ),
    *("😀😀😀😀😀😀😀😀😀😀😀", "\ud83d\ude00\ud83d", "ababababababababababababab", "0000000000000000"),
]


@pytest.mark.parametrize("text", BORDERS, ids=ascii)
def test_a_delta_may_end_anywhere(tokenizer: Tokenizer, text: str) -> None:
    expected = whole(tokenizer, text)
    for size in range(1, 8):
        for first in range(1, size + 1):
            pieces, _ = pushed(tokenizer, divided(text, [first, *[size] * len(text)]))
            assert ids(pieces) == expected, (size, first)


@given(
    fragment=st.one_of(st.sampled_from([*FRAGMENTS, *LANGUAGES.values()]), st.text(min_size=1, max_size=5)),
    count=st.integers(2, 120),
    tail=TEXT,
    sizes=st.lists(st.integers(1, 60), max_size=60),
)
def test_long_runs_have_the_ids_of_the_whole_text(
    tokenizer: Tokenizer, fragment: str, count: int, tail: str, sizes: list[int]
) -> None:
    text = fragment * count + tail
    pieces, increments = pushed(tokenizer, divided(text, sizes))
    if not increments.forced:
        assert ids(pieces) == whole(tokenizer, text)
    assert increments.chars == len(text)


@given(text=TEXT, sizes=st.lists(st.integers(1, 12), max_size=80))
def test_the_tokens_up_to_a_piece_hold_every_character_that_it_counts(
    tokenizer: Tokenizer, text: str, sizes: list[int]
) -> None:
    """The text up to `chars` is a beginning of what the tokens hold, in NFC and in UTF-8."""
    pieces, _ = pushed(tokenizer, divided(text, sizes))
    assert all(earlier.chars <= later.chars for earlier, later in pairwise(pieces))
    for count, piece in enumerate(pieces, 1):
        held = bytes_of(tokenizer, pieces[:count])
        shown = unicodedata.normalize("NFC", joined(text[: piece.chars])).encode()
        assert held.startswith(shown)
        # Not more is missing than the segment in which the piece ends.
        assert len(held.decode(errors="ignore")) - len(shown.decode()) <= MAX_SEGMENT_CHARS
    if pieces:
        assert pieces[-1].chars == len(text)


@given(text=TEXT, sizes=st.lists(st.integers(1, 7), max_size=80))
def test_bytes_may_be_divided_within_a_character(tokenizer: Tokenizer, text: str, sizes: list[int]) -> None:
    text = joined(text)
    written, deltas = text.encode(), []
    for size in sizes:
        deltas.append(written[:size])
        written = written[size:]
    pieces, increments = pushed(tokenizer, [*deltas, written])
    assert ids(pieces) == whole(tokenizer, text)
    assert increments.chars == len(text)


def check_code_points(tokenizer: Tokenizer, codes: Iterable[int], base: str) -> None:
    """Push base and character in two deltas for many characters in one call of the encoder."""
    characters = [chr(code) for code in codes if not 0xD800 <= code <= 0xDFFF]
    texts = [f"{base}{character}a" for character in characters]
    for text, expected in zip(texts, tokenizer[0].content(texts), strict=True):
        found = ids(pushed(tokenizer, [base, text[len(base) :]])[0])
        assert found == expected, ascii(text)


BASES = ["", "e", "\u1100\u1161", " ", "'", "\n", "!", "1", "क", "中"]


ALL = [*range(0x40_000), *range(0xE0_000, 0xF0_000), *range(0x10_FF00, sys.maxunicode + 1)]
"""Every plane that has characters, and the end of the private ones. The others have none, and are treated alike."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("base", BASES, ids=ascii)
def test_a_character_of_any_block_may_begin_a_delta(
    tokenizer: Tokenizer, base: str, request: pytest.FixtureRequest
) -> None:
    """All with `--all-characters` (15 s for a base, on an idle core); otherwise a sample, the same in each run."""
    if request.config.getoption("--all-characters"):
        check_code_points(tokenizer, ALL, base)
    else:
        chosen = random.Random(ascii(base))
        check_code_points(tokenizer, chosen.sample(range(0x20000), 1_500), base)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_ordinary_text_is_held_back_by_a_word_at_most(tokenizer: Tokenizer, language: str, size: int) -> None:
    text = LANGUAGES[language] * 4
    increments = Increments(tokenizer[1])
    taken: list[Piece] = []
    end = 0
    for delta in divided(text, [size] * len(text)):
        taken += increments.push(delta)
        end += len(delta)
        assert end - increments.chars <= 24
    assert ids(taken + increments.end()) == whole(tokenizer, text)
    assert increments.forced == 0


@pytest.mark.parametrize(
    "fragment",
    [" ", "\n", "\t ", "!\n", "a", "-", "=-", "ab", "ॐ", "中", "哈", "👍", "e\u0301", "\u0301", "0", "\ud83d", "\x00"],
)
def test_what_is_held_is_bounded_whatever_is_pushed(tokenizer: Tokenizer, fragment: str) -> None:
    increments = Increments(tokenizer[1])
    pieces: list[Piece] = []
    size = 0
    for _ in range(40):
        delta = fragment * (150 // len(fragment))
        pieces += increments.push(delta)
        size += len(delta)
        assert size - increments.chars <= MAX_HELD_CHARS + MAX_SEGMENT_CHARS + 1
    pieces += increments.end()
    assert increments.chars == size
    expected = unicodedata.normalize("NFC", joined(fragment * (150 // len(fragment)) * 40)).encode()
    if not increments.forced:
        assert bytes_of(tokenizer, pieces) == expected


@pytest.mark.parametrize("text", [" " * 2_000, "!" + "\n" * 2_000, "a" + "\u0301\u0316" * 200])
def test_an_early_encoding_is_counted(tokenizer: Tokenizer, text: str) -> None:
    pieces, increments = pushed(tokenizer, [text])
    assert increments.forced > 0
    assert increments.chars == len(text) == pieces[-1].chars


@pytest.mark.parametrize("fragment", ["昨天晚上我们谈了很久，", "the quick brown fox ", " ", "x", "=", "\n", "\u0301"])
def test_the_slices_of_a_long_delta_take_a_bounded_time(tokenizer: Tokenizer, fragment: str) -> None:
    """A call for one slice may take 60 times the usual, on a machine that does other things."""
    text = (fragment * 20_000)[:20_000]
    increments = Increments(tokenizer[1])
    longest_s = 0.0
    for part in slices(text):
        assert len(part) <= SLICE_CHARS
        started = time.thread_time()
        increments.push(part)
        longest_s = max(longest_s, time.thread_time() - started)
    increments.end()
    assert increments.chars == len(text)
    assert longest_s < 0.5


def test_control_tokens_as_text_are_ordinary_characters(tokenizer: Tokenizer) -> None:
    tokens, _ = tokenizer
    for word in tokens.control_words:
        for size in (1, 2, 100):
            pieces, _ = pushed(tokenizer, divided(f"so {word}\n", [size] * 40))
            assert not tokens.control & {*ids(pieces)}
            assert bytes_of(tokenizer, pieces).decode() == f"so {word}\n"


def test_empty_deltas_have_no_pieces(tokenizer: Tokenizer) -> None:
    assert pushed(tokenizer, ["", "", b""])[0] == []


def test_half_a_surrogate_pair_waits_and_is_replaced_at_the_end(tokenizer: Tokenizer) -> None:
    increments = Increments(tokenizer[1])
    assert increments.push("\ud83d") == []
    pieces = increments.end()
    assert bytes_of(tokenizer, pieces).decode() == "\ufffd"
    assert pieces[-1].chars == 1


def test_a_character_counts_only_with_its_accent(tokenizer: Tokenizer) -> None:
    increments = Increments(tokenizer[1])
    assert increments.push("cafe") == []
    pieces = increments.push("\u0301 au lait")
    # The word has five characters as pushed, and four in NFC.
    found = {piece.chars for piece in pieces}
    assert 4 not in found
    assert 5 in found


@pytest.mark.parametrize("pattern", [r"\w+|\W+", r"(?<=a)b|.", r"\s+|\S+"])
def test_a_tokenizer_with_another_split_is_refused(tokenizer: Tokenizer, pattern: str) -> None:
    found = tokenizer[0].byte_pairs
    assert found is not None
    other = BytePairs({bytes([byte]): byte for byte in range(256)}, pattern, has_nfc=True)
    with pytest.raises(Misconfigured, match=r"streams\.model"):
        Vocabulary(other)
    with pytest.raises(Misconfigured, match=r"streams\.model"):
        Vocabulary(None)
