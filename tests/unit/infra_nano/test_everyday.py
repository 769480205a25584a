"""The figures of the authored texts, from known judgements; this test needs torch, so `make test-nano` runs it."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.needs("sklearn")


def test_the_figures_count_what_is_right_found_falsely_flagged_and_named() -> None:
    from infra.nano.everyday import Judgements, everyday
    from tests.unit.infra_nano.tiny_training import authored

    # By turns Safe and Unsafe; one turn, a response, a conversation.
    texts = authored()[:6]
    flagged = np.array([0, 1, 1, 0, 0, 1])
    categories = ["PII", "Violent", "PII", "Violent", "PII", "Jailbreak"]
    refusals = [None, "No", None, None, "Yes", None]
    figures = everyday(texts, Judgements(np.eye(3)[2 * flagged], categories, refusals))
    assert figures["overall"]["all"] == {
        "texts": 6,
        "right": 0.667,
        "found": 0.667,
        "false_alarms": 0.333,
        "category": 0.5,
        "refusal": 1.0,
    }
    assert set(figures["language"]) == {"de", "en"}
    assert figures["capability"]["Unsafe: chat"]["texts"] == 3
    assert {form: each["texts"] for form, each in figures["form"].items()} == {
        "earlier turns": 2,
        "one turn": 2,
        "response": 2,
    }


def test_a_model_judges_a_conversation_as_its_prompt_is_written() -> None:
    from infra.nano.everyday import judge
    from infra.nano.network import new_model
    from infra.nano.prompts import Prompts, make_tokenizer, template
    from tests.unit.infra_nano.tiny_training import authored

    texts = authored()[:6]
    tokenizer = make_tokenizer([each.text for each in texts])
    judged = judge(texts, new_model(tokenizer.get_vocab_size(), 64, 1), tokenizer)
    assert judged.severities.sum(axis=1) == pytest.approx(1)
    assert [refusal is not None for refusal in judged.refusals] == [each.is_response for each in texts]
    prompts = Prompts(tokenizer)
    for each in texts:
        roles = [("user", "assistant")[number % 2] for number in range(len(each.turns))]
        messages = [{"role": role, "content": turn} for role, turn in zip(roles, each.turns, strict=True)]
        whole = template().render(messages=messages, add_generation_prompt=True)
        assert prompts.conversation(prompts.contents(list(each.turns))) == tokenizer.encode(whole).ids
