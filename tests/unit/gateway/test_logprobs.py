"""The logprobs that leave with a text, and those that must not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.gateway.held import Held
from workers.gateway.logprobs import MAX_WAITING

Json = dict[str, Any]


def entry(token: str, **more: Any) -> Json:
    return {"token": token, "logprob": -1.0, "bytes": [*token.encode()], "top_logprobs": [], **more}


def said(text: str, *entries: Json, **more: Any) -> Json:
    return {"delta": {"content": text}, "logprobs": {"content": [*entries], **more}}


def held_of(*choices: Json) -> Held:
    held = Held("chat")
    for choice in choices:
        held.add(choice, "delta")
    return held


def shown(held: Held, chars: int) -> list[str]:
    """Give the tokens whose entries leave with the first characters."""
    return [one["token"] for piece in held.release(chars) if piece.logprobs for one in piece.logprobs["content"] or []]


def test_entries_that_arrive_before_their_text_wait_for_it() -> None:
    held = held_of(said("one", entry("one"), entry(" BOMB"), entry(" two")), said(" BOMB two"))

    assert shown(held, 3) == ["one"]
    assert shown(held, 7) == []
    assert shown(held, 8) == [" BOMB"]
    assert shown(held, 12) == [" two"]


def test_only_known_fields_of_logprobs_leave() -> None:
    bad = {"token": "one", "logprob": float("-inf"), "bytes": [*b"BOMB BOMB"], "text": "BOMB", "debug": ["BOMB"]}
    others = [entry("uno", text="BOMB"), {"token": "BOMB " * 60}, {"token": 5}, "BOMB"]
    held = held_of(said("one", {**bad, "top_logprobs": others}, 5, {"logprob": 1}, extra="BOMB"))  # type: ignore[arg-type]

    (piece,) = held.release(3)

    assert piece.logprobs == {
        "content": [
            {
                "token": "one",
                "logprob": -9999.0,
                "bytes": None,
                "top_logprobs": [{"token": "uno", "logprob": -1.0, "bytes": [*b"uno"]}],
            }
        ],
        "refusal": None,
    }


def test_a_number_that_no_float_can_hold_passes() -> None:
    held = held_of(said("one", {"token": "one", "logprob": -(10**400)}))
    (piece,) = held.release(3)
    assert piece.logprobs is not None
    assert piece.logprobs["content"][0]["logprob"] == -(10**400)


def test_of_completions_too() -> None:
    held = Held("completions")
    logprobs = {
        "tokens": ["one", " BOMB"],
        "token_logprobs": [-1.0, -2.0],
        "top_logprobs": [{"one": -1.0, "uno": -3.0}, {"BOMB": -1.0}],
        "text_offset": [0, 3],
        "text": "one BOMB",
    }
    held.add({"text": "one BOMB", "logprobs": logprobs}, "delta")

    (piece,) = held.release(5)

    assert piece.logprobs == {
        "tokens": ["one"],
        "token_logprobs": [-1.0],
        "top_logprobs": [{"one": -1.0, "uno": -3.0}],
        "text_offset": [0],
    }


@pytest.mark.parametrize("odd", ["\ufffd", "", "<|im_end|>", "bytes:\\xf0\\x9f", "\n\n"])
def test_a_token_without_a_text_leaves_with_the_next_one(odd: str) -> None:
    held = held_of(said("one two", entry("one"), entry(odd), entry(" two")))

    assert shown(held, 3) == ["one"]
    assert shown(held, 7) == [odd, " two"]


def test_entries_without_a_place_leave_at_the_end() -> None:
    held = held_of(said("one two", entry("one"), entry("{call}"), entry(" two"), entry("<|im_end|>")))

    assert shown(held, 7) == ["one"]
    rest = held.rest_of_logprobs()
    assert rest is not None
    assert [one["token"] for one in rest["content"]] == ["{call}", " two", "<|im_end|>"]


def test_entries_that_wait_without_an_end_are_dropped() -> None:
    held = held_of(said("one", *[entry("{call}")] * (MAX_WAITING + 1)), said(" two", entry(" two")))

    assert shown(held, 7) == []
    assert held.rest_of_logprobs() is None


@settings(max_examples=60)
@given(
    words=st.lists(st.sampled_from(["one", " two", " BOMB", "\n", ". ", "é", " 你"]), max_size=12),
    ahead=st.lists(st.integers(0, 3), min_size=12, max_size=12),
    data=st.data(),
)
def test_no_entry_shows_a_text_that_is_held_back_and_all_leave_in_the_end(
    words: list[str], ahead: list[int], data: st.DataObject
) -> None:
    """Entries may arrive with the text of their token, or before it."""
    held = Held("chat")
    sent = may = 0
    text = ""
    left: list[str] = []
    for number, word in enumerate(words):
        now = min(len(words), max(sent, number + 1 + ahead[number]))
        held.add(said(word, *map(entry, words[sent:now])), "delta")
        sent = now
        text += word
        may = data.draw(st.integers(may, len(text)))
        left += shown(held, may)
        assert "".join(left) == text[: len("".join(left))]
        assert len("".join(left)) <= may
    left += shown(held, len(text))
    assert held.rest_of_logprobs() is None
    assert left == words
    assert json.dumps(left)
