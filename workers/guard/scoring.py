"""`mode: score`: each answer is settled by one token, so one forward pass tells a severity and nothing is decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence

from schemas.taxonomy import Category, Role
from workers.engines.engine import Engine
from workers.errors import Misconfigured, Unavailable
from workers.guard.calibration import Calibration
from workers.guard.opinion import CATEGORIES, NONE, SEVERITIES, Opinion, label_of, shares_of, worst_of
from workers.guard.prompt import FORCED
from workers.guard.tokens import Tokens

CATEGORY_THRESHOLD = 0.35
"""A further category is named when its share is at least this; the most likely one always is."""

LEAST_SAID = 0.5
"""A guard puts nearly all of its probability on the three labels, another model next to none."""

JAILBREAK = Category.JAILBREAK.value
ASSISTANT = Role.ASSISTANT.value

Asked = tuple[int, list[int]]
"""The index of a request, and the prompt of a further question about it."""


class Scoring:
    """Reads the answers as shares of the labels' first tokens.

    One pass for every prompt, one more for the categories of what is not safe, one more for the refusal of a response.
    `forced` is how an answer begins; `answer_tokens` is what the further questions add to a prompt at most.
    """

    def __init__(self, engine: Engine, tokens: Tokens, calibration: Calibration) -> None:
        self._engine = engine
        self._calibration = calibration
        self._severities = tokens.first(SEVERITIES)
        self._categories = tokens.first([*CATEGORIES, NONE])
        self._refusals = tokens.first(["Yes", "No"])
        self._after = {name: tokens.fixed(f" {name}\nCategories:") for name in SEVERITIES}
        self._after_category = {name: tokens.fixed(f" {name}\nRefusal:") for name in [*CATEGORIES, NONE]}
        self.forced = FORCED
        self.answer_tokens = sum(max(map(len, after.values())) for after in (self._after, self._after_category)) + 1

    async def read(self, prompts: Sequence[Sequence[list[int]]], roles: Sequence[str]) -> list[Opinion]:
        """Ask about each request's prompts; they end with `prompt.FORCED`, and `roles` say who wrote what is judged.

        Raises:
            Unavailable: the engine failed. Unjudgeable: it refuses a prompt, or has no number for it.
        """
        asked_first = [ids for group in prompts for ids in group]
        rows = await self._shares(asked_first, self._severities, self._calibration.severity)
        at = 0
        opinions: list[Opinion] = []
        to_name: list[Asked] = []
        to_refuse: list[Asked] = []
        for index, group in enumerate(prompts):
            shares = rows[at : at + len(group)]
            at += len(group)
            worst = worst_of(shares)
            label = label_of(shares[worst])
            opinions.append(Opinion(shares, worst, label, [], {}, None))
            is_response = roles[index] == ASSISTANT
            if label or is_response:
                asked = index, group[worst] + self._after[SEVERITIES[label]]
                if label:
                    to_name.append(asked)
                if is_response:
                    to_refuse.append(asked)
        await self._name_categories(opinions, to_name, roles)
        await self._tell_refusals(opinions, to_refuse)
        return opinions

    async def check(self, prompts: Sequence[list[int]]) -> None:
        """See that the model answers these prompts in a guard's words.

        Raises:
            Misconfigured: it is more likely to go on in other words.
        """
        rows = await self._score(prompts, self._severities)
        shares_of(rows)  # Refuses what is no number.
        for row in rows:
            said = sum(math.exp(value) for value in row)
            if said < LEAST_SAID:
                raise Misconfigured(
                    f"guard.model: after {FORCED!r} the model expects {', '.join(SEVERITIES)} with a probability of "
                    f"{said:.2g} in all: it is not a guard of Qwen3Guard-Gen's kind"
                )

    async def _name_categories(self, opinions: list[Opinion], asked: Sequence[Asked], roles: Sequence[str]) -> None:
        rows = await self._score([ids for _, ids in asked], self._categories)
        for (index, _), row, shares in zip(asked, rows, shares_of(rows, self._calibration.categories), strict=True):
            named = dict(zip(CATEGORIES, shares, strict=False))
            if roles[index] == ASSISTANT:
                # A response cannot be a jailbreak: the category is defined for prompts only.
                named.pop(JAILBREAK)
            # By what the engine said: to four decimals all nine may be nothing, and the first would be named.
            said = dict(zip(CATEGORIES, row, strict=False))
            ranked = sorted(named, key=said.__getitem__, reverse=True)
            opinions[index].categories = [
                name for rank, name in enumerate(ranked) if rank == 0 or named[name] >= CATEGORY_THRESHOLD
            ]
            opinions[index].category_shares = {name: named[name] for name in ranked[:3]}

    async def _tell_refusals(self, opinions: list[Opinion], asked: Sequence[Asked]) -> None:
        said = [self._after_category[(opinions[index].categories or [NONE])[0]] for index, _ in asked]
        prompts = [ids + category for (_, ids), category in zip(asked, said, strict=True)]
        rows = await self._shares(prompts, self._refusals, self._calibration.refusal)
        for (index, _), (yes, no) in zip(asked, rows, strict=True):
            opinions[index].refusal = yes > no

    async def _shares(
        self, prompts: Sequence[list[int]], candidates: Sequence[int], temperature: float
    ) -> list[list[float]]:
        return shares_of(await self._score(prompts, candidates), temperature)

    async def _score(self, prompts: Sequence[list[int]], candidates: Sequence[int]) -> list[list[float]]:
        if not prompts:
            return []
        rows = await self._engine.score(prompts, candidates)
        if len(rows) != len(prompts) or set(map(len, rows)) != {len(candidates)}:
            raise Unavailable(f"the engine gave {len(rows)} answers to {len(prompts)} prompts, or parts of answers")
        return rows
