"""Parses one line of a file of streams: an answer's labels, and what a guard found at each of its tokens.

The labels are in `gold`. What the guard found is in `risk`, three probabilities for each token as stream verdicts have
them, or in `pred_risk_levels`, one number for each token as the published evaluation of Qwen3Guard-Stream writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from schemas.stream import SEVERITIES, Probability
from schemas.taxonomy import Severity
from workers.annotation.json_lines import JsonLines
from workers.errors import Misconfigured
from workers.evaluation.samples import STREAM_LEVELS
from workers.refusals import in_words

Row = tuple[Probability, Probability, Probability]
_ROWS = TypeAdapter(list[Row])


class StreamGold(BaseModel):
    """A person's labels of an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    severity: Severity
    onset: int | None = Field(default=None, ge=0)
    """The position of the token with which the harmful part begins. Null: nobody labelled it, or nothing is harmful."""
    onset_chars: int | None = Field(default=None, ge=0)
    """The same in characters: how many come before the harmful part."""


class StreamSample(NamedTuple):
    """One judged answer. `fields` is the whole line."""

    gold: StreamGold
    risk: list[Row]
    """For each token, the probabilities of Safe, Controversial and Unsafe."""
    fields: Mapping[str, Any]


def lines(path: Path) -> Iterator[tuple[StreamGold, Mapping[str, Any], str]]:
    """Yield the labels and the fields of each line, and what errors call the line.

    Raises:
        Misconfigured: names the invalid line.
    """
    for number, row in enumerate(JsonLines(path).rows(are_whole=True), 1):
        where = f"{path}, line {number}"
        if row.fields is None:
            raise Misconfigured(f"{where}: {row.problem}")
        yield _gold(row.fields, where), row.fields, where


def has_outputs(path: Path) -> bool:
    """Whether the first line of a file has what a guard found.

    Raises:
        Misconfigured: the file has no line, or the first one has no valid labels.
    """
    for _, fields, _ in lines(path):
        return not {"risk", "pred_risk_levels"}.isdisjoint(fields)
    raise Misconfigured(f"{path}: holds no line")


def stream_samples(path: Path) -> Iterator[StreamSample]:
    """Yield the samples of a file in order.

    Raises:
        Misconfigured: names the invalid line.
    """
    for gold, fields, where in lines(path):
        risk = _risk(fields, where)
        if gold.onset is None and gold.onset_chars is not None:
            raise Misconfigured(
                f"{where}: gold.onset_chars counts characters; with outputs, name the token: gold.onset"
            )
        if gold.onset is not None and gold.onset >= len(risk):
            raise Misconfigured(f"{where}: gold.onset is {gold.onset}, but only {len(risk)} tokens are judged")
        yield StreamSample(gold, risk, fields)


def _gold(fields: Mapping[str, Any], where: str) -> StreamGold:
    try:
        gold = StreamGold.model_validate(fields.get("gold"))
    except ValidationError as error:
        raise Misconfigured(f"{where}: {_first(error, 'gold')}") from None
    if gold.severity is Severity.SAFE and (gold.onset, gold.onset_chars) != (None, None):
        raise Misconfigured(f"{where}: gold.severity is Safe, so there is no onset")
    return gold


def _risk(fields: Mapping[str, Any], where: str) -> list[Row]:
    try:
        if "risk" in fields:
            return _ROWS.validate_python(fields["risk"])
        levels = [SEVERITIES.index(STREAM_LEVELS[level]) for level in fields["pred_risk_levels"]]
    except ValidationError as error:
        raise Misconfigured(f"{where}: {_first(error, 'risk')}") from None
    except (KeyError, TypeError) as error:
        raise Misconfigured(f"{where}: has no valid risk or pred_risk_levels: {error!r}") from None
    return [(float(level == 0), float(level == 1), float(level == 2)) for level in levels]


def _first(error: ValidationError, field: str) -> str:
    first = error.errors(include_url=False)[0]
    return f"{'.'.join((field, *map(str, first['loc'])))}: {in_words(first)}"
