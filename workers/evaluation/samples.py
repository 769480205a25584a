"""Parses one line of a gold file: a person's labels of a text, and the guard's output.

The labels are in `gold`. The guard's output is in one of `assessment` (as `guardline annotate` writes it), `output`
(the text that Qwen3Guard-Gen generated), or `pred_risk_levels` (one number for each token, as the published evaluation
of Qwen3Guard-Stream writes it, with one name for each token in `pred_categories`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.taxonomy import Category, Role, Severity
from workers.annotation.json_lines import JsonLines
from workers.errors import Misconfigured
from workers.guard.generating import lines_of
from workers.refusals import in_words

STREAM_LEVELS = {0: Severity.SAFE, 1: Severity.UNSAFE, 2: Severity.CONTROVERSIAL}
"""The meaning of the numbers in `pred_risk_levels` (eval/eval_stream.py of QwenLM/Qwen3Guard)."""


class Gold(BaseModel):
    """A person's labels. A null field was not labelled."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    severity: Severity | None = None
    categories: list[Category] | None = None
    refusal: bool | None = None


class Said(NamedTuple):
    """The guard's output. `scores` are the probabilities of safe, controversial and unsafe, if it has any.

    `severity` is None if the output is unreadable; categories and refusal are None if the output has none. A refusal
    that the output should have and that is unreadable counts as no refusal.
    """

    severity: Severity | None
    categories: frozenset[str] | None
    refusal: bool | None
    scores: tuple[float, float, float] | None
    is_refusal_unreadable: bool = False


class Sample(NamedTuple):
    """One judged text. `fields` is the whole line."""

    gold: Gold
    said: Said
    fields: Mapping[str, Any]


def has_judgements(path: Path) -> bool:
    """Whether the first line of a file has a guard's output."""
    for row in JsonLines(path).rows(are_whole=True):
        return row.fields is not None and not {"assessment", "output", "pred_risk_levels"}.isdisjoint(row.fields)
    raise Misconfigured(f"{path}: holds no line")


def samples(path: Path) -> Iterator[Sample]:
    """Yield the samples of a file in order.

    Raises:
        Misconfigured: names the invalid line.
    """
    for number, row in enumerate(JsonLines(path).rows(are_whole=True), 1):
        where = f"{path}, line {number}"
        if row.fields is None:
            raise Misconfigured(f"{where}: {row.problem}")
        gold = gold_of(row.fields, where)
        try:
            yield Sample(gold, said(row.fields), row.fields)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise Misconfigured(f"{where}: has no valid output of a guard: {error!r}") from None


def check_gold(path: Path) -> None:
    """Check that each readable line has gold, before any expensive work on the file.

    Raises:
        Misconfigured: names the line without gold.
    """
    for number, row in enumerate(JsonLines(path).rows(are_whole=True), 1):
        if row.fields is not None:
            gold_of(row.fields, f"{path}, line {number}")


def gold_of(fields: Mapping[str, Any], where: str) -> Gold:
    """Parse the gold of one line.

    Raises:
        Misconfigured: names `where` it is wrong.
    """
    try:
        return Gold.model_validate(fields["gold"])
    except KeyError:
        raise Misconfigured(f"{where}: has no field 'gold'") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise Misconfigured(f"{where}: gold {place}: {in_words(first)}") from None


def said(fields: Mapping[str, Any]) -> Said:
    """Parse the guard's output of one line."""
    if "assessment" in fields:
        assessment = fields["assessment"]
        scores = assessment["scores"]
        return Said(
            Severity(assessment["severity"]),
            frozenset(assessment["categories"]),
            assessment["refusal"],
            (float(scores["safe"]), float(scores["controversial"]), float(scores["unsafe"])),
        )
    if "output" in fields:
        return _generated(fields["output"], fields.get("role") or Role.USER)
    return _streamed(fields, is_response=fields.get("role") == Role.ASSISTANT)


def _generated(output: str, role: str) -> Said:
    """Parse each line separately, as published. The live path is stricter and needs all lines."""
    severity, categories, refusal = lines_of(output, role)
    is_response = role == Role.ASSISTANT
    return Said(
        None if severity is None else tuple(Severity)[severity],
        frozenset(categories or ()),
        refusal is True if is_response else None,
        None,
        is_response and refusal is None,
    )


def _streamed(fields: Mapping[str, Any], *, is_response: bool) -> Said:
    levels = [STREAM_LEVELS[level] for level in fields["pred_risk_levels"]]
    at = settling(levels, is_response=is_response)
    severity = Severity.SAFE if at is None else levels[at]
    categories = None
    if "pred_categories" in fields:
        # The published script writes one of the names with quotation marks around it.
        names = () if at is None or severity is Severity.SAFE else (fields["pred_categories"][at].strip('"'),)
        categories = frozenset(names)
    return Said(severity, categories, None, None)


def settling(levels: Sequence[Severity], *, is_response: bool) -> int | None:
    """Return the index of the token that decides the severity of a text, as published. None: the text is safe.

    A prompt has the severity of its last token. A response is unsafe if two neighbouring tokens are unsafe, otherwise
    controversial if two neighbouring tokens are controversial. A single token is not enough.
    """
    if not is_response:
        return len(levels) - 1
    for severity in (Severity.UNSAFE, Severity.CONTROVERSIAL):
        for at, pair in enumerate(pairwise(levels), 1):
            if pair == (severity, severity):
                return at
    return None
