"""The tables of what guard-nano gets wrong."""

from __future__ import annotations

from typing import Any

import pytest

from infra.docs.guard_nano import ALL, KINDS, UNSEEN, WORST, card, readme, unseen
from infra.docs.metrics import END


def group(texts: int, right: float, **shares: float) -> dict[str, Any]:
    return {"texts": texts, "right": right, "found": None, "false_alarms": None, "category": None} | shares


def split(texts: int, auc: float | None) -> dict[str, Any]:
    shares = ("strict_f1", "constant_strict_f1", "loose_f1", "macro_f1")
    return {"texts": texts, "auc": auc} | dict.fromkeys(shares, 0.5)


FIGURES = {
    "overall": split(3_409, 0.88),
    "int8": split(3_409, 0.87),
    "lang": {"de": split(20, 0.7), "en": split(1_200, None)},
    "source": {},
    "authored": {
        "holdout": {
            **{kind: {} for kind in KINDS},
            "overall": {"all": group(2_621, 0.8, found=0.7, false_alarms=0.1, category=0.75)},
            "capability": {
                "Safe: cooking": group(30, 0.9, false_alarms=0.1),
                "Safe: counter": group(49, 0.5, false_alarms=0.5),
                "Unsafe: rare": group(2, 0.0, found=0.0),
            },
        }
    },
}
CARD = "".join(ALL.format(kind) + END for kind in (*KINDS, "split", "split by language", "split by source"))


def rows_of(page: str, kind: str) -> list[str]:
    return page.partition(ALL.format(kind))[2].partition(END)[0].splitlines()[2:]


def test_the_readme_shows_the_kinds_with_the_most_mistakes_and_none_of_few_texts() -> None:
    page = readme(f"before\n{WORST}old\n{END}after\n", FIGURES)
    assert page.splitlines() == [
        "before",
        WORST.strip(),
        "| held-out texts | number | wrong |",
        "| --- | --- | --- |",
        "| all texts | 2,621 | 20% |",
        "| Safe: counter-speech | 49 | 50% |",
        "| Safe: cooking | 30 | 10% |",
        END.strip(),
        "after",
    ]


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("overall", ["| all | 2,621 | 80% | 70% | 10% | 75% |"]),
        (
            "capability",
            [
                "| Safe: cooking | 30 | 90% | – | 10% | – |",
                "| Safe: counter-speech | 49 | 50% | – | 50% | – |",
                "| Unsafe: rare | 2 | 0% | 0% | – | – |",
            ],
        ),
        (
            "split",
            [
                "| overall | 3,409 | 0.500 | 0.500 | 0.500 | 0.500 | 0.880 |",
                "| overall, int8 | 3,409 | 0.500 | 0.500 | 0.500 | 0.500 | 0.870 |",
            ],
        ),
        (
            "split by language",
            [
                "| en | 1,200 | 0.500 | 0.500 | 0.500 | 0.500 | – |",
                "| de | 20 | 0.500 | 0.500 | 0.500 | 0.500 | 0.700 |",
            ],
        ),
    ],
)
def test_the_card_shows_every_group(kind: str, rows: list[str]) -> None:
    assert rows_of(card(CARD, FIGURES), kind) == rows


def fold(texts: int, auc: float | None, ngram: float | None) -> dict[str, Any]:
    return {"texts": texts, "auc": auc, "ngram_auc": ngram, "macro_f1": 0.5, "ngram_macro_f1": 0.25}


def test_the_folds_are_shown_with_their_mean_and_the_languages_that_have_texts_of_both_sides() -> None:
    figures = {
        "recipe": {},
        "fold 1": {"overall": {"all": fold(1_000, 0.7, 0.6)}, "lang": {"de": fold(20, None, None)}},
        "fold 0": {"overall": {"all": fold(2_000, 0.5, 0.4)}, "lang": {"en": fold(30, 0.8, 0.7)}},
    }
    markers = [UNSEEN.format(kind) for kind in ("folds", "folds by language")]
    page = unseen("".join(marker + END for marker in markers), figures)
    first, second = (page.partition(marker)[2].partition(END)[0].splitlines()[2:] for marker in markers)
    assert first == [
        "| 0 | 2,000 | 0.500 | 0.400 | 0.500 | 0.250 |",
        "| 1 | 1,000 | 0.700 | 0.600 | 0.500 | 0.250 |",
        "| **mean** |  | **0.600** | **0.500** | **0.500** | **0.250** |",
    ]
    assert second == ["| 0 | en | 30 | 0.800 | 0.700 | 0.500 | 0.250 |"]
