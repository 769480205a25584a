"""The order of the labels, which is never guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schemas.stream import ANSWER_CATEGORIES, PROMPT_CATEGORIES, SEVERITIES
from schemas.taxonomy import Category, Severity
from tests.checkpoints.stream import CONFIG
from workers.engines.stream_checkpoint import parse_config
from workers.engines.stream_labels import MAPS, WIDTH, read_labels
from workers.errors import Misconfigured


def test_the_published_numbers_become_the_order_of_the_schema() -> None:
    labels = read_labels(CONFIG, "config.json")
    assert labels.risk == labels.prompt_risk == (0, 2, 1)
    assert labels.categories == (0, 6, 1, 4, 2, 7, 3, 5)
    assert labels.prompt_categories == (*labels.categories, 8)


def test_other_numbers_are_followed() -> None:
    config = CONFIG | {"response_risk_level_map": {"0": "Safe", "1": "Controversial", "2": "Unsafe"}}
    labels = read_labels(config, "config.json")
    assert (labels.risk, labels.prompt_risk) == ((0, 1, 2), (0, 2, 1))


def test_the_names_of_the_taxonomy_are_known() -> None:
    names = {str(number): category.value for number, category in enumerate(PROMPT_CATEGORIES)}
    assert read_labels(CONFIG | {"query_category_map": names}, "config.json").prompt_categories == tuple(range(9))


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        (None, "is missing: which output is which label is not known"),
        ({"0": "Safe", "1": "Risky", "2": "Unsafe"}, "names 'Risky', which is none of: Safe, Controversial, Unsafe"),
        ({"0": "Safe", "1": "Unsafe"}, "lacks Controversial"),
        ({"0": "Safe", "1": "Unsafe", "2": "Unsafe"}, "does not number each of its labels once"),
        ({"0": "Safe", "1": "Unsafe", "3": "Controversial"}, "does not number each of its labels once"),
        ({"0": "Safe", "00": "Unsafe", "1": "Controversial"}, "does not number each of its labels once"),
        ({"0": "Safe", "1": "Unsafe", "-1": "Controversial"}, "does not number each of its labels once"),
        ({"0": 0, "1": 1, "2": 2}, "names 0, which is none of"),
        (["Safe", "Unsafe", "Controversial"], "is missing"),
    ],
)
@pytest.mark.parametrize("name", [MAPS[0], MAPS[2]])
def test_an_unknown_order_is_refused(name: str, numbers: Any, sentence: str) -> None:
    with pytest.raises(Misconfigured, match=f"config.json: {name} {sentence}"):
        read_labels(CONFIG | {name: numbers}, "config.json")


def test_each_output_arrives_at_its_label() -> None:
    labels = read_labels(CONFIG, "config.json")
    starts = {"risk": 0, "categories": 3, "prompt_risk": 11, "prompt_categories": 14}
    published: dict[str, list[Any]] = {
        "risk": [Severity.SAFE, Severity.UNSAFE, Severity.CONTROVERSIAL],
        "categories": [
            Category.VIOLENT,
            Category.SEXUAL_CONTENT,
            Category.SUICIDE_AND_SELF_HARM,
            Category.POLITICALLY_SENSITIVE_TOPICS,
            Category.PII,
            Category.COPYRIGHT_VIOLATION,
            Category.NON_VIOLENT_ILLEGAL_ACTS,
            Category.UNETHICAL_ACTS,
            Category.JAILBREAK,
        ],
    }
    orders: dict[str, tuple[Any, ...]] = {
        "risk": SEVERITIES,
        "categories": ANSWER_CATEGORIES,
        "prompt_risk": SEVERITIES,
        "prompt_categories": PROMPT_CATEGORIES,
    }
    for field, order in orders.items():
        for number, label in enumerate(published[field.removeprefix("prompt_")][: len(order)]):
            outputs = np.zeros((2, WIDTH), np.float32)
            outputs[-1, starts[field] + number] = 20
            row = np.atleast_2d(getattr(labels.judged(outputs), field))[-1]
            assert order[int(row.argmax())] is label
            assert row.max() > 0.99


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"architectures": ["Qwen3ForCausalLM"]}, r"guard\.model takes checkpoints of the kind of Qwen3Guard-Gen"),
        ({"num_category": 9}, "num_category is 9, and not 8"),
        ({"attention_bias": True}, "attention_bias: True is not supported"),
        ({"rope_scaling": {"type": "yarn", "factor": 4}}, "only the default one"),
        ({"use_sliding_window": True, "sliding_window": 256, "max_window_layers": 1}, "or the same window"),
        ({"hidden_size": None}, "is invalid: TypeError"),
    ],
)
def test_a_checkpoint_that_the_engines_do_not_compute_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Misconfigured, match=sentence):
        parse_config(CONFIG | changes, "config.json")


def test_the_window_is_that_of_all_layers() -> None:
    assert parse_config(CONFIG, "").window is None
    assert parse_config(CONFIG | {"sliding_window": 256}, "").window is None  # Without use_sliding_window.
    windowed = CONFIG | {"use_sliding_window": True, "sliding_window": 256, "max_window_layers": 0}
    assert parse_config(windowed, "").window == 256
