"""`mode: generate`: the model generates its answer, as the model card describes, and this module reads the answer.

This mode is slower and gives no probabilities. It serves to check `mode: score`, and for checkpoints whose answers
differ after their first tokens.
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
"""The limit for an answer. Three lines with all nine categories take 60 tokens."""

_SAFETY = re.compile(rf"^Safety: ({'|'.join(SEVERITIES)})\s*$", re.MULTILINE)
_CATEGORIES = re.compile(r"^Categories: (.*)$", re.MULTILINE)
_REFUSAL = re.compile(r"^Refusal: (Yes|No)\s*$", re.MULTILINE)


class Lines(NamedTuple):
    """The lines of an answer, each read separately. None if the answer has no such line."""

    severity: int | None
    """Its index in `SEVERITIES`."""
    categories: list[str] | None
    refusal: bool | None


class Answer(NamedTuple):
    """A complete answer of a model."""

    severity: int
    """Its index in `SEVERITIES`."""
    categories: list[str]
    refusal: bool | None


class Generating:
    """Lets the model generate one answer of at most `answer_tokens` for each prompt."""

    def __init__(self, engine: Engine, tokens: Tokens) -> None:
        self._engine = engine
        self._tokens = tokens
        self.forced = ""
        self.answer_tokens = MAX_TOKENS

    async def read(
        self, prompts: Sequence[Sequence[list[int]]], roles: Sequence[str], deadline: float
    ) -> list[Opinion | Refused]:
        """Judge the prompts of each request. They end where the answer begins. Each probability is 1 or 0.

        A request is refused if the engine refuses one of its prompts, or if an answer is invalid.

        Raises:
            Unavailable: the engine failed.
        """
        flat = [ids for group in prompts for ids in group]
        completions = await self._engine.complete(flat, MAX_TOKENS, deadline)
        if len(completions) != len(flat):
            raise Unavailable(f"the engine gave {len(completions)} answers to {len(flat)} prompts")
        written = iter(zip(flat, completions, strict=True))
        opinions: list[Opinion | Refused] = []
        for group, role in zip(prompts, roles, strict=True):
            own = [next(written) for _ in group]
            tokens = sum(len(ids) + (0 if isinstance(answer, Refused) else len(answer)) for ids, answer in own)
            opinions.append(_opinion(all_or_refused([self._read(answer, role) for _, answer in own]), tokens))
        return opinions

    def _read(self, completion: list[int] | Refused, role: str) -> Answer | Refused:
        return completion if isinstance(completion, Refused) else parse(self._tokens.text(completion), role)


def _opinion(answers: Sequence[Answer] | Refused, tokens: int) -> Opinion | Refused:
    if isinstance(answers, Refused):
        return answers
    probabilities = [[float(index == answer.severity) for index in range(3)] for answer in answers]
    worst = worst_of(probabilities)
    chosen = answers[worst]
    return Opinion(probabilities, worst, chosen.severity, chosen.categories, {}, chosen.refusal, tokens)


def lines_of(text: str, role: str) -> Lines:
    """Read the lines of an answer. Names other than those of the nine categories are skipped."""
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
    """Read a complete answer. A Safe one has no categories.

    An answer without a severity is refused, and so is an answer about a response without a refusal. Nothing is assumed,
    least of all Safe.
    """
    severity, categories, refusal = lines_of(text, role)
    if severity is None or (role == Role.ASSISTANT and refusal is None):
        # Never the answer itself: the log has this sentence, and a model may repeat the content.
        return Refused("unreadable_answer", f"an answer of {len(text)} characters lacks a line that it must have")
    return Answer(severity, (categories or []) if severity else [], refusal)
