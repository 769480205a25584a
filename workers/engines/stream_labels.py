"""Which output of a checkpoint's heads is which label. The order is read from `config.json`, and is never guessed.

The published checkpoints number Unsafe before Controversial. A server that assumed the order of severity would swap the
two, and nobody would notice it by the numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from schemas.stream import ANSWER_CATEGORIES, PROMPT_CATEGORIES, SEVERITIES
from schemas.taxonomy import Category, Severity
from workers.engines.stream import Floats, Judged
from workers.errors import Misconfigured

Label = TypeVar("Label", bound=StrEnum)

MAPS = ("response_risk_level_map", "response_category_map", "query_risk_level_map", "query_category_map")
"""The maps of the four heads in `config.json`, in the order in which the engines concatenate the heads' outputs."""

_STARTS = (0, 3, 11, 14, 23)
"""Where each head's outputs begin, and where the last head's outputs end."""

WIDTH = _STARTS[-1]
"""The outputs of all heads together."""

_SEVERITY_NAMES = {severity.value.lower(): severity for severity in Severity}
_CATEGORY_NAMES = {category.value.lower(): category for category in Category} | {
    "sexual content": Category.SEXUAL_CONTENT,
    "self-harm": Category.SUICIDE_AND_SELF_HARM,
    "suicide and self-harm": Category.SUICIDE_AND_SELF_HARM,
    "political": Category.POLITICALLY_SENSITIVE_TOPICS,
    "personally identifiable information": Category.PII,
    "copyright": Category.COPYRIGHT_VIOLATION,
    "illegal acts": Category.NON_VIOLENT_ILLEGAL_ACTS,
    "unethical": Category.UNETHICAL_ACTS,
}
"""The names of Qwen3Guard-Gen, and the shorter ones of Qwen3Guard-Stream."""


@dataclass(frozen=True)
class Labels:
    """For each label of `schemas.stream`, in its order: the index of the label among the outputs of its head."""

    risk: tuple[int, ...]
    categories: tuple[int, ...]
    prompt_risk: tuple[int, ...]
    prompt_categories: tuple[int, ...]

    def judged(self, outputs: Floats) -> Judged:
        """Make probabilities of the outputs of all heads, in the order of `MAPS`, for one chunk: (n, 23) with n > 0."""
        return divided(self.probabilities(outputs))

    def probabilities(self, outputs: Floats) -> Floats:
        """Do so for any number of tokens, (n, 23), and leave the heads in one array."""
        heads = [
            softmax(outputs[:, start:end])[:, order]
            for (start, end), order in zip(
                pairwise(_STARTS), (self.risk, self.categories, self.prompt_risk, self.prompt_categories), strict=True
            )
        ]
        return np.concatenate(heads, axis=1)


def divided(probabilities: Floats) -> Judged:
    """Divide the probabilities of one chunk, (n, 23), by heads. The user's turn is read at the last token."""
    _, risk, categories, prompt_risk, _ = _STARTS
    last = probabilities[-1]
    return Judged(
        risk=probabilities[:, :risk],
        categories=probabilities[:, risk:categories],
        prompt_risk=last[categories:prompt_risk],
        prompt_categories=last[prompt_risk:],
    )


def softmax(logits: Floats) -> Floats:
    """Return the probabilities along the last axis, in float32."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), dtype=np.float32)


def read_labels(config: Mapping[str, Any], source: object) -> Labels:
    """Read the order of the labels. `source` is named in errors.

    Raises:
        Misconfigured: a map is missing, incomplete, or names a label that is not known.
    """
    risk, categories, prompt_risk, prompt_categories = MAPS
    return Labels(
        risk=_order(config, risk, SEVERITIES, _SEVERITY_NAMES, source),
        categories=_order(config, categories, ANSWER_CATEGORIES, _CATEGORY_NAMES, source),
        prompt_risk=_order(config, prompt_risk, SEVERITIES, _SEVERITY_NAMES, source),
        prompt_categories=_order(config, prompt_categories, PROMPT_CATEGORIES, _CATEGORY_NAMES, source),
    )


def _order(
    config: Mapping[str, Any], name: str, labels: Sequence[Label], names: Mapping[str, Label], source: object
) -> tuple[int, ...]:
    found = config.get(name)
    if not isinstance(found, Mapping):
        raise Misconfigured(f"{source}: {name} is missing: which output is which label is not known")
    indices: dict[Label, int] = {}
    for key, value in found.items():
        label = names.get(value.strip().lower()) if isinstance(value, str) else None
        if label is None or label not in labels:
            raise Misconfigured(f"{source}: {name} names {value!r}, which is none of: {', '.join(labels)}")
        if label in indices or not str(key).isdecimal() or int(key) >= len(labels) or int(key) in indices.values():
            raise Misconfigured(f"{source}: {name} does not number each of its labels once: {dict(found)}")
        indices[label] = int(key)
    if missing := [label.value for label in labels if label not in indices]:
        raise Misconfigured(f"{source}: {name} lacks {', '.join(missing)}")
    return tuple(indices[label] for label in labels)
