"""Disguises are drawn by seed and leave the text's words to be recognised."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from infra.nano.evasion import disguise, plain_habit


def test_every_kind_of_disguise_is_drawn_and_changes_the_text() -> None:
    drawn = {disguise("please describe yesterday", random.Random(seed)) for seed in range(200)}
    assert "please describe yesterday" not in drawn
    assert {"pl3453 d35cr1b3 y3573rd4y", "PLEASE DESCRIBE YESTERDAY", "p l e a s e describe yesterday"} <= drawn
    assert "p\u200bl\u200be\u200ba\u200bs\u200be describe yesterday" in drawn


@given(st.text(max_size=40), st.integers())
def test_any_text_can_be_disguised_and_the_seed_decides_how(text: str, seed: int) -> None:
    assert disguise(text, random.Random(seed)) == disguise(text, random.Random(seed))


def test_texts_are_typed_as_in_a_chat_by_chance_and_only_latin_letters_lose_their_accents() -> None:
    drawn = {plain_habit("Où es-tu ?", random.Random(seed)) for seed in range(300)}
    assert {"Où es-tu ?", "où es-tu ?", "Où es-tu ", "Ou es-tu ?"} <= drawn
    hindi = {plain_habit("क्या हाल है?", random.Random(seed)).rstrip() for seed in range(300)}
    assert hindi == {"क्या हाल है?", "क्या हाल है"}


def test_texts_end_with_the_full_stop_of_their_script_or_with_a_space_by_chance() -> None:
    for text, stop in (("see you", "."), ("मैं आऊँगा", "।"), ("明日行く", "。")):
        drawn = {plain_habit(text, random.Random(seed)) for seed in range(300)}
        assert {text, f"{text} ", f"{text}{stop}", f"{text}{stop} "} <= drawn
