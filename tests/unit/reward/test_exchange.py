"""Prompts and completions as trainers give them: texts and messages, with and without thoughts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.errors import Unjudgeable
from workers.reward.exchange import Exchange, read_exchange, split_thought


@pytest.mark.parametrize(
    ("completion", "thought", "answer"),
    [
        ("Yes.", "", "Yes."),
        ("<think>hm</think>Yes.", "hm", "Yes."),
        ("\n<think>\nhm\n</think>\n\nYes.", "hm", "Yes."),
        # Some chat templates write <think> into the prompt.
        ("hm</think>Yes.", "hm", "Yes."),
        ("<think>\n\n</think>\n\nYes.", "", "Yes."),
        ("<think>hm", "hm", ""),
        ("<think>", "", ""),
        ("First <think>hm</think>Yes.", "First hm", "Yes."),
        ("<think>a</think>b</think>c", "a", "b</think>c"),
        ("Yes. <think>hm", "", "Yes. <think>hm"),
        ("", "", ""),
    ],
)
def test_a_thought_is_what_comes_before_its_end(completion: str, thought: str, answer: str) -> None:
    assert split_thought(completion) == (thought, answer)


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", "b", " ", "\n"]), max_size=8).map("".join), st.booleans())
def test_every_word_of_a_completion_is_in_its_thought_or_in_its_answer(text: str, is_begun: bool) -> None:
    """An evader must not find tags between which a text is not judged."""
    together = "".join(split_thought(text, is_begun=is_begun))
    assert [char for char in together if char in "ab"] == [char for char in text if char in "ab"]


def test_a_prompt_may_begin_the_thought() -> None:
    assert read_exchange("Hello<think>\n", "hm") == Exchange((("user", "Hello"),), "hm", "")


def test_messages_and_texts_are_read_alike() -> None:
    plain = read_exchange("Hello", "<think>hm</think>Hi.", 0.5)
    messages = read_exchange(
        [{"role": "user", "content": "Hello"}], [{"role": "assistant", "content": "<think>hm</think>Hi."}], 0.5
    )
    apart = read_exchange(
        [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
        [{"role": "assistant", "content": "Hi.", "reasoning_content": "hm"}],
        0.5,
    )
    assert plain == messages == apart == Exchange((("user", "Hello"),), "hm", "Hi.", 0.5)


def test_only_turns_of_user_and_assistant_are_context() -> None:
    prompt = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "How are you?"},
    ]
    found = read_exchange(prompt, "Fine.")
    assert found.context == (("user", "Hello"), ("assistant", "Hi."), ("user", "How are you?"))


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        (None, "Hi."),
        ("Hello", None),
        ("Hello", 7),
        ("Hello", ["Hi."]),
        ([{"role": "user", "content": 7}], "Hi."),
        ([{"content": "Hello"}], "Hi."),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}], "What is it?"),
        ("Hello", [{"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": "{}"}}]}]),
        ("Hello", [{"role": "tool", "content": "4"}]),
    ],
)
def test_other_shapes_cannot_be_judged(prompt: Any, completion: Any) -> None:
    with pytest.raises(Unjudgeable):
        read_exchange(prompt, completion)
