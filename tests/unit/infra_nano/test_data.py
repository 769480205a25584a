"""Held-out texts are not trained on: neither rows nor sources related to a held-out one."""

from __future__ import annotations

import pytest

from infra.nano.data import FOLDS, Row, balance, family, hold_out_rows, hold_out_sources, is_harmful

SOURCES = (
    "hatecheck_en",
    "mhc_de",
    "sghatecheck_zh",
    "cold_zh",
    "davidson",
    "surge_toxicity",
    "surge_profanity",
    "new",
)


def rows() -> list[Row]:
    return [
        Row(text=f"{source} {number}", safety=safety, categories=[], lang="en", source=source)
        for size, source in enumerate(SOURCES, start=1)
        for number in range(20 * size)
        for safety in ("Safe", "Unsafe", "Unsafe")
    ]


def test_each_source_is_held_out_by_exactly_one_fold() -> None:
    held_out = [row["source"] for fold in range(FOLDS) for row in hold_out_sources(rows(), fold)[1]]
    assert sorted(held_out) == sorted(row["source"] for row in rows())


@pytest.mark.parametrize("fold", range(FOLDS))
def test_no_source_related_to_an_unseen_one_is_trained_on(fold: int) -> None:
    train, unseen = hold_out_sources(rows(), fold)
    assert not {family(row["source"]) for row in train} & {family(row["source"]) for row in unseen}


def test_rows_are_held_out_of_each_source_equally_and_reproducibly() -> None:
    train, validation = hold_out_rows(rows())
    assert (train, validation) == hold_out_rows(rows())
    assert len(train) + len(validation) == len(rows())
    assert {row["source"] for row in validation} == set(SOURCES)


def test_safe_and_other_texts_have_equal_weight_and_a_source_the_root_of_its_size() -> None:
    weights, harmful = balance(rows()), is_harmful(rows())
    assert weights[harmful].sum() == pytest.approx(weights[~harmful].sum())
    sources = [row["source"] for row in rows()]
    of = {source: weights[[name == source for name in sources]].sum() for source in ("hatecheck_en", "cold_zh")}
    assert of["cold_zh"] / of["hatecheck_en"] == pytest.approx(4**0.5)
