"""Reads the training texts and holds some of them out: at random, or by whole sources. It uses no model."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt

SEED = 17

# Sources with a common origin (translations, templates, the same collector) are held out together, because a text of
# one has near copies in the others. A name may be a prefix.
_FAMILIES = {
    "hatecheck": ("hatecheck_en", "mhc_", "sghatecheck_zh"),
    "mlcommons": ("ailuminate_demo", "mlc_poc"),
    "jailbreaks": ("verazuo_inthewild", "gptfuzz_templates", "pyrit_jailbreak"),
    "surge": ("surge_",),
}
# Each fold has safe and other texts in several languages; together the folds hold every source out once.
_FOLDS = (
    ("hatecheck", "self_instruct", "advbench", "strongreject"),
    (
        "cold_zh",
        "davidson",
        "uli_hi",
        "curse_ko",
        "goemotions_clean",
        "multijail",
        "banking77",
        "jailbreaks",
        "plexpt_zh",
    ),
)
FOLDS = len(_FOLDS) + 1
"""The last fold holds out all sources that the others do not."""


_ONE_SIDED = 0.3
"""The least that a weight is multiplied by for it."""


class Row(TypedDict):
    """One labelled text: the fields of a line of the data file that training reads."""

    text: str
    safety: str
    categories: list[str]
    lang: str
    source: str


def read(path: Path) -> list[Row]:
    """Read a gzipped JSON-lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def hold_out_rows(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Return (training rows, validation rows), 5 % of each source held out.

    The split depends on the rows and on SEED alone, so that it can be made again for a checkpoint made earlier.
    """
    rng = random.Random(SEED)  # noqa: S311 - a split, not a secret
    by_source: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_source[row["source"]].append(row)
    train: list[Row] = []
    validation: list[Row] = []
    for source in sorted(by_source):
        group = by_source[source]
        rng.shuffle(group)
        cut = len(group) // 20
        validation += group[:cut]
        train += group[cut:]
    rng.shuffle(train)
    return train, validation


def hold_out_sources(rows: list[Row], fold: int) -> tuple[list[Row], list[Row]]:
    """Return (training rows, unseen rows); no source, and no relative of a source, is in both.

    `fold` is 0 to FOLDS - 1.
    """
    folds = {name: number for number, names in enumerate(_FOLDS) for name in names}
    train: list[Row] = []
    unseen: list[Row] = []
    for row in rows:
        held_out = folds.get(family(row["source"]), FOLDS - 1) == fold
        (unseen if held_out else train).append(row)
    return train, unseen


def family(source: str) -> str:
    """Name the origin that a source shares with others, or the source itself."""
    return next((name for name, beginnings in _FAMILIES.items() if source.startswith(beginnings)), source)


def balance(rows: list[Row]) -> npt.NDArray[np.float64]:
    """Give each row's weight, 1 on average: sources count by the root of their size, safe as much as the rest.

    Otherwise the model would learn a large source's style instead of its labels, and prefer the larger side in doubt.
    """
    counts = Counter(row["source"] for row in rows)
    weights = np.array([counts[row["source"]] ** -0.5 for row in rows])
    harmful = is_harmful(rows)
    return _even_sides(weights, harmful)


def balance_languages(rows: list[Row]) -> npt.NDArray[np.float64]:
    """Give each row's weight as `balance` does, less where a language has fewer texts of the other side.

    Otherwise the model would learn that the language is the reason.
    """
    weights, harmful = balance(rows), is_harmful(rows)
    langs = np.array([row["lang"] for row in rows])
    for lang in set(langs):
        sides = [(langs == lang) & side for side in (harmful, ~harmful)]
        totals = [weights[side].sum() for side in sides]
        for side, own, other in zip(sides, totals, totals[::-1], strict=True):
            if own > 0:
                weights[side] *= min(1.0, max(_ONE_SIDED, (other / own) ** 0.5))
    return _even_sides(weights, harmful)


def _even_sides(weights: npt.NDArray[np.float64], harmful: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Give both sides the same total weight, and a row 1 on average. Changes the given weights."""
    for side in (harmful, ~harmful):
        if side.any():
            weights[side] /= weights[side].sum()
    return np.asarray(weights / weights.mean())


def is_harmful(rows: list[Row]) -> npt.NDArray[np.bool_]:
    """Return for each row whether its label is not Safe."""
    return np.array([row["safety"] != "Safe" for row in rows])
