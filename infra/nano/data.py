"""Reads the training texts and holds out the validation split; it never looks at a model."""

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import TypedDict

SEED = 17


class Row(TypedDict):
    """One labelled text: the fields of a line of the data file that training reads."""

    text: str
    safety: str
    categories: list[str]
    lang: str
    source: str


def read(path: Path) -> tuple[list[Row], list[Row]]:
    """Read a gzipped JSON-lines file; return (training rows, validation rows), 5 % of each source held out.

    The split depends on the file and on SEED alone, so that it can be made again for a checkpoint made earlier.
    """
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows: list[Row] = [json.loads(line) for line in lines]
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
