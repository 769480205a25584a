"""Fits one temperature for each kind of answer, so that the guard's probabilities match the observed frequencies.

The most likely answer stays the same; only its probability changes.

The guard divides the log-probabilities of the candidates by the temperature before it normalises them (Guo et al.,
2017, "temperature scaling").
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from schemas.taxonomy import Category, Severity
from workers.annotation.rows import PLAIN, Row, request_of
from workers.engines.engine import Engine, Refused, all_or_refused
from workers.errors import Misconfigured, Undecodable
from workers.evaluation.samples import Gold
from workers.guard.guard import Guard

ANSWERS = ("severity", "categories", "refusal")
"""The kinds of answers, and the keys of `calibration.json`."""
CANDIDATES = {len(Severity): "severity", len(Category) + 1: "categories", 2: "refusal"}
"""The number of candidates identifies the kind of answer. The last candidate of categories is "no category"."""
MIN_ANSWERS = 100
"""With fewer answers a temperature is unreliable, and stays 1."""
COLDEST, HOTTEST = 0.05, 20.0

Rows = NDArray[np.float64]


class Answers(NamedTuple):
    """The model's answers of one kind.

    `rows` are log-probabilities, shape (answers, candidates); `right` marks the candidates of the gold, same shape.
    """

    rows: Rows
    right: Rows

    def loss(self, temperature: float) -> float:
        """Return the mean negative log-likelihood of the gold at a temperature, in nats."""
        scaled = self.rows / temperature
        shares = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        of_gold = (shares * self.right).sum(axis=1) / shares.sum(axis=1)
        return float(-np.log(np.maximum(of_gold, 1e-12)).mean())


class Fit(NamedTuple):
    """A temperature, and the loss before and after it, on the half of the answers that it was not fitted to."""

    temperature: float
    answers: int
    loss_before: float
    loss_after: float


@dataclass(slots=True)
class _Asked:
    """The engine's rows for one request."""

    rows: dict[str, list[list[float]]] = field(default_factory=dict)


_asked: ContextVar[_Asked] = ContextVar("asked")


class ListeningEngine:
    """Forwards all calls to an engine, and records its log-probabilities for the current request."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def answered(self) -> int:
        """See `Engine.answered`."""
        return self._engine.answered

    @property
    def identity(self) -> str:
        """See `Engine.identity`."""
        return self._engine.identity

    @property
    def prompts_at_a_time(self) -> int | None:
        """See `Engine.prompts_at_a_time`."""
        return self._engine.prompts_at_a_time

    async def start(self, shared_tokens: int = 0) -> None:
        """See `Engine.start`."""
        await self._engine.start(shared_tokens)

    async def close(self) -> None:
        """See `Engine.close`."""
        await self._engine.close()

    async def watch(self) -> None:
        """See `Engine.watch`."""
        await self._engine.watch()

    async def score(
        self, prompts: Sequence[Sequence[int]], candidates: Sequence[int], deadline: float = math.inf
    ) -> Sequence[list[float] | Refused]:
        """See `Engine.score`."""
        rows = await self._engine.score(prompts, candidates, deadline)
        asked = _asked.get(None)
        if asked is not None and not isinstance(found := all_or_refused(rows), Refused):
            asked.rows[CANDIDATES[len(candidates)]] = found
        return rows

    async def complete(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, deadline: float = math.inf
    ) -> Sequence[list[int] | Refused]:
        """See `Engine.complete`."""
        return await self._engine.complete(prompts, max_tokens, deadline)


async def answers_of(guard: Guard, rows: Iterable[Row], *, at_once: int) -> dict[str, Answers]:
    """Judge rows with a guard on a `ListeningEngine`; return its answers with their gold.

    A text with several windows or views has several answers and one gold, and is left out. So is a row that cannot be
    judged.

    Raises:
        Misconfigured: a row has no valid gold. Unavailable, Fatal: the engine failed.
    """
    found: dict[str, list[tuple[list[float], list[bool]]]] = {name: [] for name in ANSWERS}
    numbered = enumerate(rows, 1)
    while chunk := list(islice(numbered, at_once)):
        for asked, gold in await asyncio.gather(*(_ask(guard, number, row) for number, row in chunk)):
            for name, right in _right(gold).items():
                answers = asked.rows.get(name, [])
                if len(answers) == 1 and len(asked.rows["severity"]) == 1 and any(right):
                    found[name].append((answers[0], right))
    return {
        name: Answers(np.array([row for row, _ in pairs]), np.array([right for _, right in pairs], np.float64))
        for name, pairs in found.items()
        if pairs
    }


async def _ask(guard: Guard, number: int, row: Row) -> tuple[_Asked, Gold]:
    asked = _Asked()
    _asked.set(asked)  # Each request has its own task, so no other request sees this value.
    try:
        gold = Gold.model_validate((row.fields or {})["gold"])
    except (KeyError, ValueError) as error:
        raise Misconfigured(f"line {number}: has no valid gold: {error}") from None
    try:
        request = request_of(PLAIN.event_of(row))
    except Undecodable:
        return asked, gold
    (answer,) = await guard.assess([request])
    if isinstance(answer, Refused):
        asked.rows.clear()
    return asked, gold


def _right(gold: Gold) -> Mapping[str, list[bool]]:
    right: dict[str, list[bool]] = {}
    if gold.severity is not None:
        right["severity"] = [severity is gold.severity for severity in Severity]
    if gold.categories is not None:
        right["categories"] = [*(category in gold.categories for category in Category), not gold.categories]
    if gold.refusal is not None:
        right["refusal"] = [gold.refusal, not gold.refusal]
    return right


def fit(answers: Answers) -> Fit | None:
    """Fit a temperature to all answers; None if there are too few, or if all have the same gold."""
    if len(answers.rows) < MIN_ANSWERS or (answers.right == answers.right[0]).all():
        return None
    fitted_to, measured_on = (Answers(answers.rows[start::2], answers.right[start::2]) for start in (0, 1))
    halfway = _coolest_loss(fitted_to)
    return Fit(_coolest_loss(answers), len(answers.rows), measured_on.loss(1.0), measured_on.loss(halfway))


def _coolest_loss(answers: Answers) -> float:
    """Find the temperature with the lowest loss, by a golden-section search over its logarithm."""
    section = (5**0.5 - 1) / 2
    low, high = np.log(COLDEST), np.log(HOTTEST)
    while high - low > 1e-4:
        left, right = high - section * (high - low), low + section * (high - low)
        if answers.loss(float(np.exp(left))) <= answers.loss(float(np.exp(right))):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def write(fits: Mapping[str, Fit | None], path: Path) -> None:
    """Write the temperatures to the file that the guard reads, with the number of answers and the losses.

    Raises:
        Misconfigured: the folder is not writable.
    """
    document: dict[str, object] = {
        name: 1.0 if one is None else round(one.temperature, 4) for name, one in fits.items()
    }
    document["fitted"] = {name: one._asdict() for name, one in fits.items() if one is not None}
    try:
        path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    except OSError as error:
        raise Misconfigured(f"{path}: cannot be written ({error}): name another file with --out") from error
