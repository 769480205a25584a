"""What nano-stream learns from a stream, and the streams that it is measured on."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import infra.nano_stream
from infra.nano.authored import Part
from infra.nano_stream.held_out import BEFORE, Group, held_out
from infra.nano_stream.measure import cuts, threshold_for
from infra.nano_stream.streams import Asked, Pool, Span, Streams, as_said, make, styled
from infra.nano_stream.texts import Kind, Text, answers
from schemas.stream import ANSWER_CATEGORIES, PROMPT_CATEGORIES, SEVERITIES
from schemas.taxonomy import Category, Severity
from workers.evaluation.stream_samples import StreamGold, StreamSample
from workers.evaluation.stream_score import Rules
from workers.guard.tokens import Tokens
from workers.live.chatml import ChatML

FOLDER = Path(infra.nano_stream.__file__).parent / "checkpoint" / "hf"
SAFE = Text("The tea is hot and the bread is fresh", Severity.SAFE, None, "en", Kind.ORDINARY)
UNSAFE = Text("I will stab you and burn your house down tonight", Severity.UNSAFE, Category.VIOLENT, "en", Kind.DATA)
NO, UNSAFE_NUMBER = 0.0, SEVERITIES.index(Severity.UNSAFE)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


def answer_of_three() -> tuple[str, list[Span]]:
    answer = f"{SAFE.text}. {UNSAFE.text}. {SAFE.text} {SAFE.text}"
    at = answer.index(UNSAFE.text)
    last = answer.index(SAFE.text, at)
    spans = [Span(0, len(SAFE.text), SAFE), Span(at, at + len(UNSAFE.text), UNSAFE), Span(last, len(answer), SAFE)]
    return answer, spans


def test_only_the_later_part_of_a_harmful_text_and_three_tokens_behind_it_are_taught_as_harmful(
    tokenizer: Tokenizer,
) -> None:
    answer, spans = answer_of_three()
    made = make(tokenizer, Asked("hello", None), answer, spans, "", 200)
    ends = [end for _, end in tokenizer.encode(answer, add_special_tokens=False).offsets]
    inside = [number for number, end in enumerate(ends) if spans[1].start < end <= spans[1].end]
    assert made.onset == inside[0]
    assert made.ends == inside[-1] + 1
    assert {made.severities[number] for number in inside} == {UNSAFE_NUMBER}
    assert made.weights[inside[0]] == NO
    assert made.weights[inside[-1]] == 6.0
    rising = [made.weights[number] for number in inside]
    assert rising == sorted(rising)
    behind = range(made.ends, made.ends + 8)
    assert [made.severities[number] for number in behind] == [UNSAFE_NUMBER] * 3 + [0] * 5
    assert [made.weights[number] for number in behind] == [3.0] * 3 + [NO] * 5
    rest = [*range(inside[0]), *range(made.ends + 8, len(made.weights))]
    assert {(made.severities[number], made.weights[number], made.categories[number]) for number in rest} == {
        (0, 1.0, -1)
    }
    assert made.categories[inside[-1]] == ANSWER_CATEGORIES.index(Category.VIOLENT)


def test_the_template_is_that_of_the_workers(tokenizer: Tokenizer) -> None:
    made = make(tokenizer, Asked("Who are you?", UNSAFE), SAFE.text, [Span(0, 99, SAFE)], "", 200)
    chatml = ChatML(Tokens(FOLDER))
    question = [*chatml.before_user, *chatml.content("Who are you?"), *chatml.after_turn]
    assert made.ids[: made.prompt_end + 1] == question
    assert made.ids[: made.first] == [*question, *chatml.before_answer]
    assert made.ids[made.first :] == chatml.content(SAFE.text)
    assert made.prompt_severity == UNSAFE_NUMBER
    assert made.prompt_category == PROMPT_CATEGORIES.index(Category.VIOLENT)


def test_an_earlier_turn_stands_before_the_question(tokenizer: Tokenizer) -> None:
    made = make(tokenizer, Asked("And now?", None, ["Hi", "Hello"]), SAFE.text, [Span(0, 99, SAFE)], "", 200)
    chatml = ChatML(Tokens(FOLDER))
    earlier = chatml.earlier([("user", "Hi"), ("assistant", "Hello")], 100)
    question = [*chatml.before_user, *chatml.content("And now?"), *chatml.after_turn]
    assert made.ids[: made.prompt_end + 1] == [*earlier, *question]
    assert made.prompt_severity == -1


def test_streams_have_the_length_that_is_asked_for_and_are_the_same_each_time(tokenizer: Tokenizer) -> None:
    drawn = [Streams([SAFE, UNSAFE], tokenizer, random.Random(3)).stream(100) for _ in range(2)]
    assert drawn[0] == drawn[1]
    several = Streams([SAFE, UNSAFE], tokenizer, random.Random(4))
    made = [several.stream(100) for _ in range(30)]
    assert {len(each.ids) for each in made} == {100}
    assert {each.onset is None for each in made} == {True, False}


def test_an_english_request_becomes_an_answer_to_it() -> None:
    asked = Text("How do I pick the lock of a car?", Severity.UNSAFE, Category.VIOLENT, "en", Kind.DATA)
    said = {as_said(asked, random.Random(seed)) for seed in range(40)}
    assert "Here is how to pick the lock of a car. " in said
    assert asked.text in said


def test_a_style_keeps_most_of_the_words() -> None:
    styles = {styled(UNSAFE.text + ".", random.Random(seed)) for seed in range(60)}
    assert UNSAFE.text.lower() + "." in styles
    assert UNSAFE.text in styles
    assert all(len(style.split()) >= 6 for style in styles)


def test_a_pool_gives_the_texts_of_a_language() -> None:
    other = Text("Guten Tag", Severity.SAFE, None, "de", Kind.ORDINARY)
    pool = Pool([SAFE, other], {Kind.ORDINARY: 1.0})
    assert {pool.draw(random.Random(seed), "de").text for seed in range(9)} == {"Guten Tag"}
    assert len({pool.draw(random.Random(seed), "xx").text for seed in range(9)}) == 2


def test_a_measured_stream_names_the_token_with_which_the_harm_begins(tokenizer: Tokenizer) -> None:
    streams = held_out([SAFE, UNSAFE], Group.HARMFUL, 20, tokenizer, 1)
    for each in streams:
        assert each.onset is not None
        assert each.onset_chars is not None
        answer = each.ids[each.first :]
        assert each.text[each.onset_chars :].startswith(UNSAFE.text)
        assert "stab" not in tokenizer.decode(answer[: each.onset + 2])
        assert "stab" in tokenizer.decode(answer[each.onset : each.onset + 8])
        assert BEFORE[0] <= each.onset <= BEFORE[1] + 20
    assert all(each.onset is None for each in held_out([SAFE, UNSAFE], Group.ORDINARY, 5, tokenizer, 1))


def test_no_held_out_answer_is_trained_on() -> None:
    parts = [{each.text for each in answers(part)} for part in Part]
    assert all(parts)
    assert sum(map(len, parts)) == len(set().union(*parts))


def samples(*unsafe: list[float]) -> list[StreamSample]:
    return [
        StreamSample(StreamGold(severity=Severity.SAFE), [(1 - each, 0.0, each) for each in row], {}) for row in unsafe
    ]


def test_the_threshold_is_the_lowest_one_with_few_enough_cuts() -> None:
    streams = samples(*([0.1, peak, peak, 0.1] for peak in (0.2, 0.4, 0.6, 0.8)), [0.99, 0.1, 0.99])
    assert threshold_for(streams, 400) == 0.401
    assert sum(cut is not None for cut in cuts(streams, 0.401)) == 2
    assert sum(cut is not None for cut in cuts(streams, 0.4)) == 3
    assert threshold_for(streams, 0) == 0.801


def test_the_quick_cuts_are_those_of_the_rules() -> None:
    rng = random.Random(5)
    streams = samples(*([rng.random() for _ in range(rng.randint(0, 12))] for _ in range(300)))
    for threshold in (0.5, 0.8, 0.95):
        assert cuts(streams, threshold) == [Rules(threshold=threshold).cut(each.risk) for each in streams]
