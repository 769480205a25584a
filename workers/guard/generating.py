"""`mode: generate`: the model card's way, which lets the model write its answer and reads it.

It is slower and knows no shares. It is there to check `mode: score` against, and for checkpoints whose answers differ
in more than their first tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from schemas.taxonomy import Category, Role
from workers.engines.engine import Engine, Refused, all_or_refused
from workers.errors import Unavailable
from workers.guard.opinion import CATEGORIES, SEVERITIES, Opinion, worst_of
from workers.guard.tokens import Tokens

MAX_TOKENS = 128
"""Of an answer: three lines with all nine categories take 60."""

_SAFETY = re.compile(rf"^Safety: ({'|'.join(SEVERITIES)})\s*$", re.MULTILINE)
_CATEGORIES = re.compile(r"^Categories: (.*)$", re.MULTILINE)
_REFUSAL = re.compile(r"^Refusal: (Yes|No)\s*$", re.MULTILINE)


class Lines(NamedTuple):
    """What the lines of an answer say, each read by itself; None where there is no such line."""

    severity: int | None
    """Its index."""
    categories: list[str] | None
    refusal: bool | None


class Answer(NamedTuple):
    """What a model wrote, whole."""

    severity: int
    """Its index."""
    categories: list[str]
    refusal: bool | None


class Generating:
    """Lets the model write its answers, of `answer_tokens` at most: one completion for every prompt."""

    def __init__(self, engine: Engine, tokens: Tokens) -> None:
        self._engine = engine
        self._tokens = tokens
        self.forced = ""
        self.answer_tokens = MAX_TOKENS

    async def read(
        self, prompts: Sequence[Sequence[list[int]]], roles: Sequence[str], deadline: float
    ) -> list[Opinion | Refused]:
        """Ask about each request's prompts, which end where the answer begins. A severity's share is 1 or 0.

        A request is refused when the engine refuses one of its prompts, or an answer cannot be read.

        Raises:
            Unavailable: the engine failed.
        """
        flat = [ids for group in prompts for ids in group]
        completions = await self._engine.complete(flat, MAX_TOKENS, deadline)
        if len(completions) != len(flat):
            raise Unavailable(f"the engine gave {len(completions)} answers to {len(flat)} prompts")
        written = iter(completions)
        return [
            _opinion(all_or_refused([self._read(next(written), role) for _ in group]))
            for group, role in zip(prompts, roles, strict=True)
        ]

    def _read(self, completion: list[int] | Refused, role: str) -> Answer | Refused:
        return completion if isinstance(completion, Refused) else parse(self._tokens.text(completion), role)


def _opinion(answers: Sequence[Answer] | Refused) -> Opinion | Refused:
    if isinstance(answers, Refused):
        return answers
    shares = [[float(index == answer.severity) for index in range(3)] for answer in answers]
    worst = worst_of(shares)
    return Opinion(shares, worst, answers[worst].severity, answers[worst].categories, {}, answers[worst].refusal)


def lines_of(text: str, role: str) -> Lines:
    """Read the lines of an answer. Categories that are none of the nine are left out."""
    safety, named, refusal = _SAFETY.search(text), _CATEGORIES.search(text), _REFUSAL.search(text)
    is_response = role == Role.ASSISTANT
    return Lines(
        None if safety is None else SEVERITIES.index(safety[1]),
        # A response cannot be a jailbreak: the category is defined for prompts only.
        None
        if named is None
        else [
            name
            for name in dict.fromkeys(name.strip() for name in named[1].split(","))
            if name in CATEGORIES and not (is_response and name == Category.JAILBREAK)
        ],
        refusal[1] == "Yes" if is_response and refusal is not None else None,
    )


def parse(text: str, role: str) -> Answer | Refused:
    """Read an answer as a judgement. What is safe has no categories.

    Refused is one that names no severity, or, of a response, no refusal. Nothing is taken for granted, least of all
    Safe.
    """
    severity, categories, refusal = lines_of(text, role)
    if severity is None or (role == Role.ASSISTANT and refusal is None):
        return Refused("unreadable_answer", f"the model wrote {text[:200]!r}")
    return Answer(severity, (categories or []) if severity else [], refusal)
