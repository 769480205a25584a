"""Where a stream is cut, and what of it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.policy import HoldBack, StreamPolicy
from workers.policy.document import InvalidPolicy, parse
from workers.policy.policy import CompiledPolicy
from workers.policy.presets import PRESETS
from workers.policy.streams import Cut, StreamRules

SAFE, CONTROVERSIAL, UNSAFE = (0.9, 0.06, 0.04), (0.2, 0.7, 0.1), (0.1, 0.2, 0.7)
ROWS = {"s": SAFE, "c": CONTROVERSIAL, "u": UNSAFE}
VIOLENT = (0.8, *[0.02] * 7)
FIVE = "12345"
"""Each token of these tests has five characters."""


def run(marks: str, rules: StreamRules, chars: int = 5) -> list[int]:
    """Give the rules one position for each letter; return what is shown after each, up to a cut."""
    shown = []
    for number, mark in enumerate(marks, 1):
        rules.pushed("x" * chars)
        cut = rules.position(ROWS[mark], VIOLENT, number * chars)
        shown.append(rules.shown_chars)
        if cut is not None:
            break
    return shown


def policy(**fields: Any) -> StreamPolicy:
    return StreamPolicy.model_validate(fields)


@pytest.mark.parametrize(
    ("fields", "marks", "cut"),
    [
        ({}, "ssusuus", Cut(5, 20, "unsafe", "Unsafe", ("Violent",))),
        ({"cut_unsafe": 1}, "su", Cut(1, 5, "unsafe", "Unsafe", ("Violent",))),
        ({"cut_unsafe": None}, "uuuuuuuu", None),
        ({"cut_unsafe": 3}, "uusuuscc", None),
        ({"cut_controversial": 3}, "sccsccu", Cut(6, 20, "controversial", "Unsafe", ("Violent",))),
        ({"cut_controversial": 3}, "sccsccc", Cut(6, 20, "controversial", "Controversial", ("Violent",))),
        ({"cut_unsafe": None, "mean_weight": 0.5}, "suuu", Cut(2, 10, "mean", "Unsafe", ("Violent",))),
        ({"threshold": 0.75}, "uuuu", None),
        ({"threshold": 0.7}, "uu", Cut(1, 0, "unsafe", "Unsafe", ("Violent",))),
        ({"threshold": 0.8, "cut_controversial": 2}, "cc", Cut(1, 0, "controversial", "Controversial", ("Violent",))),
    ],
)
def test_a_stream_is_cut_where_its_policy_says(fields: dict[str, Any], marks: str, cut: Cut | None) -> None:
    rules = StreamRules(policy(**fields))
    run(marks, rules)
    assert rules.cut == cut


def test_the_threshold_of_the_checkpoint_applies_only_to_a_policy_without_one() -> None:
    for own, recommended, is_cut in ((None, 0.75, False), (0.6, 0.75, True), (None, None, True), (0.75, None, False)):
        rules = StreamRules(policy(threshold=own), recommended)
        run("uu", rules)
        assert (rules.cut is not None) == is_cut


@pytest.mark.parametrize(
    ("until", "tokens", "shown"),
    [
        ("none", 0, [5, 10, 15, 20, 25, 20]),
        ("tokens", 0, [5, 5, 15, 20, 20, 20]),
        ("tokens", 2, [0, 0, 5, 10, 15, 15]),
        ("all", 0, [0, 0, 0, 0, 0, 0]),
    ],
)
def test_a_token_is_shown_as_the_hold_back_says_and_a_run_waits(until: str, tokens: int, shown: list[int]) -> None:
    rules = StreamRules(policy(hold_back={"until": until, "tokens": tokens}))
    assert run("sussuu", rules) == shown
    rules.pushed("more")
    rules.end_turn()
    assert rules.shown_chars == shown[-1]


def test_a_sentence_is_shown_when_all_of_it_is_judged() -> None:
    rules = StreamRules(policy(hold_back={"until": "sentence"}))
    text = "One is 1.5. Two! Three"
    shown = []
    for number, char in enumerate(text, 1):
        rules.pushed(char)
        assert rules.position(SAFE, VIOLENT, number - 1) is None  # The last character is never judged yet.
        shown.append(text[: rules.shown_chars])
    assert list(dict.fromkeys(shown)) == ["", "One is 1.5.", "One is 1.5. Two!"]
    rules.end_turn()
    assert rules.shown_chars == len(text)


def test_the_end_of_an_answer_shows_all_of_it_and_ends_its_runs() -> None:
    rules = StreamRules(policy(hold_back={"until": "all"}))
    assert run("su", rules) == [0, 0]
    rules.end_turn()
    assert rules.shown_chars == 10
    rules.pushed(FIVE)
    assert rules.position(UNSAFE, VIOLENT, 15) is None
    assert (rules.positions, rules.shown_chars) == (3, 10)


def test_a_turn_of_the_user_is_cut_by_its_most_likely_severity() -> None:
    for cut_prompt, cut_at in ((None, ""), ("unsafe", "u"), ("controversial", "uc")):
        for mark, row in ROWS.items():
            rules = StreamRules(policy(cut_prompt=cut_prompt))
            cut = rules.prompt(row, (*[0.0] * 8, 1.0))
            assert (cut is not None) == (mark in cut_at)
            if cut is not None:
                assert (cut.position, cut.shown_chars, cut.reason, cut.categories) == (0, 0, "prompt", ("Jailbreak",))


def test_what_cannot_be_judged_is_never_safe() -> None:
    """Only the policy lets it be shown, and then the stream says so."""
    rules = StreamRules(policy())
    run("su", rules)
    rules.pushed(FIVE)
    assert rules.unavailable() == Cut(2, 5, "unavailable", None)
    assert not rules.is_unjudged

    rules = StreamRules(policy(on_unavailable="allow", hold_back={"until": "all"}))
    run("ss", rules)
    rules.pushed(FIVE)
    assert rules.unavailable() is None
    assert rules.is_unjudged
    assert rules.shown_chars == 15
    rules.pushed(FIVE)
    assert rules.shown_chars == 20


POLICIES = st.builds(
    StreamPolicy,
    cut_unsafe=st.none() | st.integers(1, 4),
    cut_controversial=st.none() | st.integers(1, 6),
    threshold=st.none() | st.sampled_from([0.3, 0.7, 0.8, 1.0]),
    mean_weight=st.none() | st.sampled_from([0.1, 0.5, 1.0]),
    hold_back=st.sampled_from([HoldBack(until=until) for until in ("none", "sentence", "all")])
    | st.integers(0, 5).map(lambda tokens: HoldBack(until="tokens", tokens=tokens)),
    on_unavailable=st.sampled_from(["cut", "allow"]),
)
TOKENS = st.lists(st.tuples(st.sampled_from("sscu"), st.sampled_from([" one", " two.", "\n", "。", "x"])), max_size=40)


@given(POLICIES, TOKENS, st.data())
def test_nothing_that_is_held_back_is_shown_before_it_is_judged(
    rules_of: StreamPolicy, tokens: Sequence[tuple[str, str]], data: st.DataObject
) -> None:
    """Whatever the text and the chunks, and the chunks do not change where the cut falls."""
    ends = list(accumulate(len(text) for _, text in tokens))
    whole = "".join(text for _, text in tokens)
    rules, cuts = StreamRules(rules_of), []
    pushed = judged = 0
    while judged < len(tokens):
        if pushed <= judged or data.draw(st.booleans()):
            more = data.draw(st.integers(1, 8))
            rules.pushed(whole[ends[pushed - 1] if pushed else 0 : ends[min(pushed + more, len(ends)) - 1]])
            pushed = min(pushed + more, len(ends))
        else:
            cut = rules.position(ROWS[tokens[judged][0]], VIOLENT, ends[judged])
            judged += 1
            if cut is not None:
                cuts.append(cut)
                break
        if rules_of.hold_back.until != "none":
            assert rules.shown_chars <= (ends[judged - 1] if judged else 0)
    if rules_of.hold_back.until != "none" and rules_of.mean_weight is None and cuts:
        row = cuts[0].position
        run_of = (rules_of.cut_unsafe if cuts[0].reason == "unsafe" else rules_of.cut_controversial) or 1
        assert rules.shown_chars <= (ends[row - run_of] if row >= run_of else 0)

    again, found = StreamRules(rules_of), None
    for (mark, text), end in zip(tokens, ends, strict=True):
        again.pushed(text)
        found = again.position(ROWS[mark], VIOLENT, end)
        if found is not None:
            break
    assert place(found) == (place(cuts[0]) if cuts else None)


def place(cut: Cut | None) -> tuple[int, str] | None:
    return None if cut is None else (cut.position, cut.reason)


@pytest.mark.parametrize(
    ("stream", "sentence"),
    [
        ({"cut_unsafe": 0}, "stream.cut_unsafe: has to be at least 1"),
        ({"hold_back": {"until": "word"}}, "stream.hold_back.until: has to be 'none', 'tokens', 'sentence' or 'all'"),
        (
            {"hold_back": {"until": "all", "tokens": 3}},
            "stream.hold_back.tokens (3) has an effect only with until: tokens: leave it out",
        ),
        ({"on_unavailable": "hold"}, "stream.on_unavailable: has to be 'cut' or 'allow'"),
        ({"cut_prompt": "Unsafe"}, "stream.cut_prompt: has to be 'unsafe' or 'controversial'"),
        (
            {"mean_threshold": 0.4},
            "stream.mean_threshold has an effect only with stream.mean_weight: set it, such as 0.1",
        ),
        ({"treshold": 0.4}, "unknown field 'treshold' in stream"),
    ],
)
def test_a_wrong_document_is_refused_with_a_sentence(stream: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        parse("acme", {"stream": stream})
    assert str(caught.value) == f"policy for tenant 'acme': {sentence}"


def test_a_document_changes_single_fields_of_its_presets_rules() -> None:
    own = CompiledPolicy(parse("acme", {"preset": "strict", "stream": {"replacement": "Sorry."}}))
    assert own.stream == PRESETS["strict"].stream.model_copy(update={"replacement": "Sorry."})
    assert CompiledPolicy(parse("acme", {})).stream == StreamPolicy()


def test_the_digest_of_stream_records_covers_the_rules_of_streams_and_no_others() -> None:
    plain, other, review = (
        CompiledPolicy(parse("acme", fields))
        for fields in ({}, {"stream": {"cut_unsafe": 3}}, {"controversial": "review"})
    )
    assert plain.stream_reference == review.stream_reference != other.stream_reference
    assert plain.reference == other.reference != review.reference
