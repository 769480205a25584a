"""Judges completions with the guard, and gives each its reward.

A completion that cannot be judged as a whole has no reward, and never the reward of a safe one.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from schemas.taxonomy import Severity
from workers.core.batcher import estimate_tokens
from workers.errors import OneAtFault
from workers.guard.guard import Refused, Request
from workers.guard.retries import ask_with_retries
from workers.reward.equations import Equation
from workers.reward.exchange import Exchange
from workers.settings import Batch

Assessed = dict[str, Any] | Refused


class Assessor(Protocol):
    """What rewards need of a guard."""

    async def assess(self, requests: Sequence[Request], deadline: float = math.inf) -> Sequence[Assessed]:
        """Judge each request, with retries until the deadline (of `time.monotonic`) at most."""
        ...


@dataclass(frozen=True)
class Rewarded:
    """The reward of one completion, and why.

    Attributes:
        reward: None if it does not apply: the completion cannot be judged, or a score is missing.
        thought: the severity of prompt and thought; None if there is no thought, or it was not judged.
        answer: the severity of prompt and answer; None if there is no answer, or it was not judged.
        refusal: whether the answer refuses; None if it was not judged.
        problem: why there is no reward, as a sentence; None if there is one.
    """

    reward: float | None
    thought: Severity | None = None
    answer: Severity | None = None
    refusal: bool | None = None
    problem: str | None = None


async def rewards(
    guard: Assessor,
    exchanges: Sequence[Exchange | OneAtFault],
    equation: Equation,
    batch: Batch,
    retry_s: float,
) -> list[Rewarded]:
    """Give the reward of each completion, in order. An `OneAtFault` in the place of one becomes its problem.

    Micro-batches have the bounds of `batch`, of which `in_flight` are at the engine at a time. The event loop is not
    blocked.

    Guarantee: a completion has a reward only if the guard judged all of its thought and of its answer, or if a part of
    it is unsafe.

    Raises:
        Unavailable: the engine gave no answer for `retry_s` seconds. Fatal: it does not recover.
    """
    requests = [
        request
        for exchange in exchanges
        if not isinstance(exchange, OneAtFault)
        for request in (_thought_of(exchange), _answer_of(exchange))
        if request is not None
    ]
    slots = asyncio.Semaphore(batch.in_flight)

    async def assess(part: Sequence[Request]) -> Sequence[Assessed]:
        async with slots:
            deadline = time.monotonic() + retry_s
            return await ask_with_retries(lambda: guard.assess(part, deadline), lambda: deadline)

    parts = await _all([assess(part) for part in _micro_batches(requests, batch)])
    found = iter([answer for part in parts for answer in part])
    rewarded: list[Rewarded] = []
    for exchange in exchanges:
        if isinstance(exchange, OneAtFault):
            rewarded.append(Rewarded(None, problem=exchange.detail))
            continue
        thought = next(found) if exchange.thought else None
        answer = next(found) if exchange.answer else None
        rewarded.append(_rewarded(exchange, thought, answer, equation))
    return rewarded


Answer = TypeVar("Answer")


async def _all(calls: Sequence[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """Run calls at the same time. The first failure ends the others."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


def _thought_of(exchange: Exchange) -> Request | None:
    return Request(exchange.thought, "assistant", exchange.context) if exchange.thought else None


def _answer_of(exchange: Exchange) -> Request | None:
    return Request(exchange.answer, "assistant", exchange.context) if exchange.answer else None


def _micro_batches(requests: Sequence[Request], batch: Batch) -> Iterator[Sequence[Request]]:
    start = tokens = 0
    for index, request in enumerate(requests):
        size = estimate_tokens(len(request.text) + sum(len(text) for _, text in request.context))
        if index > start and (index - start >= batch.max_count or tokens + size > batch.max_tokens):
            yield requests[start:index]
            start, tokens = index, 0
        tokens += size
    if requests:
        yield requests[start:]


def _rewarded(exchange: Exchange, thought: Assessed | None, answer: Assessed | None, equation: Equation) -> Rewarded:
    thought_severity, answer_severity = _severity(thought), _severity(answer)
    refusal = bool(answer["refusal"]) if isinstance(answer, dict) else None
    known = [severity for severity in (thought_severity, answer_severity) if severity is not None]
    is_unsafe = not all(map(equation.is_safe, known))
    problem = None
    if not is_unsafe:
        # What is not judged counts as neither safe nor unsafe. A part that is unsafe decides alone.
        problem = _problem(thought) or _problem(answer)
        if problem is None and answer is None:
            problem = "the completion has no answer, only a thought" if exchange.thought else "the completion is empty"
    if equation.mode == "hybrid" and (exchange.score is None or math.isnan(exchange.score)):
        problem = problem or "there is no score of the other reward model"
    if problem is not None:
        return Rewarded(None, thought_severity, answer_severity, refusal, problem)
    reward = equation.reward(known, is_refusal=bool(refusal), score=exchange.score)
    return Rewarded(reward, thought_severity, answer_severity, refusal)


def _severity(found: Assessed | None) -> Severity | None:
    return Severity(found["severity"]) if isinstance(found, dict) else None


def _problem(found: Assessed | None) -> str | None:
    if isinstance(found, Refused):
        return found.detail
    if found is not None and found["truncated_windows"]:
        return "the text is too long to be judged as a whole (guard.max_windows)"
    return None
