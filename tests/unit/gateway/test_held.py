from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.gateway.faults import BadUpstream
from workers.gateway.held import Held
from workers.gateway.parts import Api

Json = dict[str, Any]


def deltas(held: Held, chars: int) -> list[Json]:
    return [piece.fields for piece in held.release(chars)]


def chat(*choices: Json) -> Held:
    held = Held("chat")
    for choice in choices:
        held.add(choice, "delta")
    return held


def test_nothing_is_released_beyond_what_may_be_shown() -> None:
    held = chat({"delta": {"role": "assistant"}}, {"delta": {"content": "one "}}, {"delta": {"content": "two"}})

    assert held.take(100) == "one two"
    assert deltas(held, 0) == [{"role": "assistant", "content": ""}]
    assert deltas(held, 6) == [{"content": "one "}, {"content": "tw"}]
    assert deltas(held, 6) == deltas(held, 3) == []
    assert deltas(held, 7) == [{"content": "o"}]


def test_texts_of_two_channels_are_judged_apart_and_shown_in_their_order() -> None:
    held = chat({"delta": {"reasoning_content": "so"}}, {"delta": {"content": "yes"}}, {"delta": {"refusal": "no"}})

    assert held.take(100) == "so\n\nyes\n\nno"
    assert deltas(held, 4) == [{"reasoning_content": "so"}]
    assert deltas(held, 11) == [{"content": "yes"}, {"refusal": "no"}]


def test_the_name_of_a_function_is_shown_as_a_whole() -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_it", "arguments": ""}}
    held = chat(
        {"delta": {"tool_calls": [call]}}, {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}
    )

    assert held.take(100) == "get_it\n\n{}"
    assert deltas(held, 5) == []
    assert deltas(held, 6) == [{"tool_calls": [call]}]
    assert deltas(held, 10) == [{"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}]


def test_custom_tools_and_legacy_functions_are_judged() -> None:
    held = chat(
        {"delta": {"tool_calls": [{"index": 1, "id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls"}}]}},
        {"delta": {"function_call": {"name": "f", "arguments": "{}"}}},
    )

    assert held.take(100) == "sh\n\nls\n\nf\n\n{}"
    assert deltas(held, 100) == [
        {"tool_calls": [{"index": 1, "id": "c", "type": "custom", "custom": {"name": "sh", "input": ""}}]},
        {"tool_calls": [{"index": 1, "custom": {"input": "ls"}}]},
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{}"}},
    ]


def test_logprobs_are_shown_with_the_last_character_of_their_text() -> None:
    held = chat(
        {"delta": {"content": "ab"}, "logprobs": {"content": [{"token": "ab"}]}},
        {"delta": {"content": ""}, "logprobs": {"content": [{"token": "\ufffd"}]}},
        {"delta": {"content": "c"}, "logprobs": {"content": [{"token": "c"}], "refusal": None}},
    )

    assert [piece.logprobs for piece in held.release(1)] == [None]
    assert [piece.logprobs for piece in held.release(2)] == [{"content": [{"token": "ab"}]}]
    assert [piece.logprobs for piece in held.release(3)] == [
        {"content": [{"token": "\ufffd"}, {"token": "c"}], "refusal": None}
    ]


def test_fields_that_are_not_known_never_reach_a_client() -> None:
    held = chat({"delta": {"content": "a", "secret": "BOMB", "audio": {"transcript": "BOMB"}}, "token_ids": [1]})

    assert deltas(held, 100) == [{"content": "a"}]


def test_a_role_in_every_chunk_takes_no_memory_and_is_shown_once() -> None:
    held = chat(*[{"delta": {"role": "assistant", "content": ""}}] * 1_000, {"delta": {"content": "a"}})

    assert deltas(held, 100) == [{"role": "assistant", "content": ""}, {"content": "a"}]


def test_spaces_around_the_id_of_a_call_are_left_out() -> None:
    held = chat({"delta": {"tool_calls": [{"index": 0, "id": " functions.find:0\n"}]}})

    assert deltas(held, 0) == [{"tool_calls": [{"index": 0, "id": "functions.find:0"}]}]


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": "text"},
        {"delta": {"content": 5}},
        {"delta": {"content": ["a"]}},
        {"delta": {"role": "x" * 300}},
        {"delta": {"tool_calls": [{"index": 0, "id": "take a pipe and powder"}]}},
        {"delta": {"tool_calls": {}}},
        {"delta": {"tool_calls": ["a"]}},
        {"delta": {"tool_calls": [{"index": -1}]}},
        {"delta": {"tool_calls": [{"index": True}]}},
        {"delta": {"tool_calls": [{"index": 0, "function": "f"}]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": {}}}]}},
        {"delta": {"function_call": "f"}},
    ],
)
def test_a_field_of_another_type_ends_the_stream(choice: Json) -> None:
    with pytest.raises(BadUpstream):
        chat(choice)


@settings(max_examples=50)
@given(
    api=st.sampled_from(["chat", "completions"]),
    texts=st.lists(st.tuples(st.sampled_from(["content", "reasoning"]), st.text(max_size=8)), max_size=12),
    data=st.data(),
)
def test_every_character_is_released_once_and_none_early(
    api: Api, texts: list[tuple[str, str]], data: st.DataObject
) -> None:
    held = Held(api)
    judged = ""
    shown = 0
    got: list[str] = []
    for name, text in texts:
        held.add({"text": text} if api == "completions" else {"delta": {name: text}}, "delta")
        judged += held.take(data.draw(st.integers(1, 20)))
        shown = max(shown, data.draw(st.integers(0, len(judged))))
        got += [next(iter(piece.fields.values())) for piece in held.release(shown)]
        # Text between two channels is judged and not shown.
        assert len("".join(got)) <= shown
        assert held.arrived >= held.taken == len(judged)
    while rest := held.take(5):
        judged += rest
    got += [next(iter(piece.fields.values())) for piece in held.release(len(judged))]

    assert "".join(got) == "".join(text for _, text in texts)
