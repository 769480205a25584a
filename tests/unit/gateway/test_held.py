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


def call(index: int, text: str, name: str | None = None) -> Json:
    """Give a delta of a call's arguments; with a name, the first."""
    if name is None:
        return {"delta": {"tool_calls": [{"index": index, "function": {"arguments": text}}]}}
    function = {"name": name, "arguments": text}
    return {"delta": {"tool_calls": [{"index": index, "id": f"c{index}", "type": "function", "function": function}]}}


def test_calls_that_are_written_in_turns_are_judged_one_after_the_other() -> None:
    held = chat(
        call(0, "", "f"), call(1, "", "g"), call(0, '{"a": "BO'), call(1, '{"b": '), call(0, 'MB"}'), call(1, "2}")
    )
    assert held.take(100) == 'f\n\ng\n\n{"b": 2}'
    assert '{"a"' not in str(deltas(held, 100))

    held.end()

    assert held.take(100) == '\n\nf\n\n{"a": "BOMB"}'
    assert deltas(held, 12) == []
    assert "".join(one["tool_calls"][0]["function"]["arguments"] for one in deltas(held, 100)) == '{"a": "BOMB"}'


def test_calls_that_are_written_in_turns_do_not_wait_without_an_end() -> None:
    held = chat(call(0, "", "f"), call(1, "", "g"))
    most = told = 0
    for number in range(3_000):
        held.add(call(0, f"a{number} "), "delta")
        held.add(call(1, f"b{number} "), "delta")
        most = max(most, held._waiting_chars)
        told += len(held.take(1_000_000))
    held.end()
    told += len(held.take(1_000_000))

    assert most <= 5_000
    written = sum(len(f"a{number} ") for number in range(3_000)) * 2
    assert told < 1.6 * written


@settings(max_examples=50)
@given(
    turns=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["ab", "c", "{", " d"])), max_size=24),
    says=st.sets(st.integers(0, 24), max_size=3),
)
def test_the_guard_reads_each_call_as_one_text_and_the_client_gets_it_once(
    turns: list[tuple[int, str]], says: set[int]
) -> None:
    held = Held("chat")
    texts: dict[int, str] = {}
    shown: dict[int, str] = {}
    judged = ""
    for number, (index, text) in enumerate(turns):
        if number in says:
            held.add({"delta": {"content": "so"}}, "delta")
        held.add(call(index, text), "delta")
        texts[index] = texts.get(index, "") + text
        judged += held.take(1_000)
    held.end()
    judged += held.take(1_000)
    for fields in deltas(held, len(judged)):
        for one in fields.get("tool_calls", []):
            shown[one["index"]] = shown.get(one["index"], "") + one["function"]["arguments"]

    assert shown == texts
    assert all(text in judged.split("\n\n") for text in texts.values())


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
