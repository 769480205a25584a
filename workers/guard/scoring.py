"""`mode: score`: each answer is settled by one token, so one forward pass tells a severity and nothing is decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence

from schemas.taxonomy import Category, Role
from workers.engines.engine import Engine, Refused, all_or_refused
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

Asked = tuple[int, Opinion, list[int]]
"""The index of a request, what is known of it, and the prompt of a further question about it."""


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

    async def read(
        self, prompts: Sequence[Sequence[list[int]]], roles: Sequence[str], deadline: float
    ) -> list[Opinion | Refused]:
        """Ask about each request's prompts; they end with `prompt.FORCED`, and `roles` say who wrote what is judged.

        A request is refused when the engine refuses one of its prompts, or has no number for it.

        Raises:
            Unavailable: the engine failed.
        """
        asked_first = [ids for group in prompts for ids in group]
        rows = await self._shares(asked_first, self._severities, self._calibration.severity, deadline)
        at = 0
        opinions: list[Opinion | Refused] = []
        to_name: list[Asked] = []
        to_refuse: list[Asked] = []
        for index, group in enumerate(prompts):
            shares = all_or_refused(rows[at : at + len(group)])
            at += len(group)
            if isinstance(shares, Refused):
                opinions.append(shares)
                continue
            worst = worst_of(shares)
            label = label_of(shares[worst])
            opinion = Opinion(shares, worst, label, [], {}, None)
            opinions.append(opinion)
            is_response = roles[index] == ASSISTANT
            if label or is_response:
                asked = index, opinion, group[worst] + self._after[SEVERITIES[label]]
                if label:
                    to_name.append(asked)
                if is_response:
                    to_refuse.append(asked)
        await self._name_categories(opinions, to_name, roles, deadline)
        await self._tell_refusals(opinions, to_refuse, deadline)
        return opinions

    async def check(self, prompts: Sequence[list[int]]) -> None:
        """See that the model answers these prompts in a guard's words.

        Raises:
            Misconfigured: it is more likely to go on in other words.
        """
        rows = all_or_refused(await self._score(prompts, self._severities, math.inf))
        if isinstance(rows, Refused):
            raise Misconfigured(f"guard.model: the engine refuses a plain text: {rows}")
        for row in rows:
            said = sum(math.exp(value) for value in row)
            if said < LEAST_SAID:
                raise Misconfigured(
                    f"guard.model: after {FORCED!r} the model expects {', '.join(SEVERITIES)} with a probability of "
                    f"{said:.2g} in all: it is not a guard of Qwen3Guard-Gen's kind"
                )

    async def _name_categories(
        self, opinions: list[Opinion | Refused], asked: Sequence[Asked], roles: Sequence[str], deadline: float
    ) -> None:
        rows = await self._score([ids for _, _, ids in asked], self._categories, deadline)
        named_shares = shares_of(rows, self._calibration.categories)
        for (index, opinion, _), row, shares in zip(asked, rows, named_shares, strict=True):
            if isinstance(row, Refused):
                opinions[index] = row
                continue
            if isinstance(shares, Refused):
                opinions[index] = shares
                continue
            named = dict(zip(CATEGORIES, shares, strict=False))
            if roles[index] == ASSISTANT:
                # A response cannot be a jailbreak: the category is defined for prompts only.
                named.pop(JAILBREAK)
            # By what the engine said: to four decimals all nine may be nothing, and the first would be named.
            said = dict(zip(CATEGORIES, row, strict=False))
            ranked = sorted(named, key=said.__getitem__, reverse=True)
            opinion.categories = [
                name for rank, name in enumerate(ranked) if rank == 0 or named[name] >= CATEGORY_THRESHOLD
            ]
            opinion.category_shares = {name: named[name] for name in ranked[:3]}

    async def _tell_refusals(self, opinions: list[Opinion | Refused], asked: Sequence[Asked], deadline: float) -> None:
        asked = [one for one in asked if opinions[one[0]] is one[1]]  # Others were refused their categories.
        prompts = [ids + self._after_category[(opinion.categories or [NONE])[0]] for _, opinion, ids in asked]
        rows = await self._shares(prompts, self._refusals, self._calibration.refusal, deadline)
        for (index, opinion, _), shares in zip(asked, rows, strict=True):
            if isinstance(shares, Refused):
                opinions[index] = shares
            else:
                yes, no = shares
                opinion.refusal = yes > no

    async def _shares(
        self, prompts: Sequence[list[int]], candidates: Sequence[int], temperature: float, deadline: float
    ) -> list[list[float] | Refused]:
        return shares_of(await self._score(prompts, candidates, deadline), temperature)

    async def _score(
        self, prompts: Sequence[list[int]], candidates: Sequence[int], deadline: float
    ) -> Sequence[list[float] | Refused]:
        if not prompts:
            return []
        rows = await self._engine.score(prompts, candidates, deadline)
        count = len(candidates)
        if len(rows) != len(prompts) or any(not isinstance(row, Refused) and len(row) != count for row in rows):
            raise Unavailable(f"the engine gave {len(rows)} answers to {len(prompts)} prompts, or parts of answers")
        return rows
