"""`mode: score`: one token decides each answer, so one forward pass gives the severity and nothing is generated."""

from __future__ import annotations

import math
from collections.abc import Sequence

from schemas.taxonomy import Category, Role
from workers.engines.engine import Engine, Refused, all_or_refused
from workers.errors import Misconfigured, Unavailable
from workers.guard.calibration import Calibration
from workers.guard.opinion import CATEGORIES, NONE, SEVERITIES, Opinion, label_of, probabilities_of, worst_of
from workers.guard.prompt import FORCED
from workers.guard.tokens import Tokens

CATEGORY_THRESHOLD = 0.35
"""The assessment names a further category if its probability is at least this. It always names the most likely one."""

LEAST_SAID = 0.5
"""For a guard, the probabilities of the three labels add up to nearly 1; for another model, to nearly 0."""

JAILBREAK = Category.JAILBREAK.value
ASSISTANT = Role.ASSISTANT.value

Asked = tuple[int, Opinion, list[int]]
"""The index of a request, its answers so far, and the prompt of a further question about it."""


class Scoring:
    """Reads the answers as probabilities of the labels' first tokens.

    Every prompt costs one forward pass. A text that is not Safe costs another for its categories, and a response costs
    another for its refusal. `forced` is the beginning of an answer. `answer_tokens` is the largest number of tokens
    that the further questions add to a prompt.
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
        """Judge the prompts of each request. They end with `prompt.FORCED`; `roles` are the roles of the judged turns.

        A request is refused if the engine refuses one of its prompts, or gives no valid numbers for it.

        Raises:
            Unavailable: the engine failed.
        """
        asked_first = [ids for group in prompts for ids in group]
        rows = await self._probabilities(asked_first, self._severities, self._calibration.severity, deadline)
        at = 0
        opinions: list[Opinion | Refused] = []
        to_name: list[Asked] = []
        to_refuse: list[Asked] = []
        for index, group in enumerate(prompts):
            probabilities = all_or_refused(rows[at : at + len(group)])
            at += len(group)
            if isinstance(probabilities, Refused):
                opinions.append(probabilities)
                continue
            worst = worst_of(probabilities)
            label = label_of(probabilities[worst])
            opinion = Opinion(probabilities, worst, label, [], {}, None, sum(map(len, group)))
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
        """Check that the model answers these prompts with the three labels.

        Raises:
            Misconfigured: other words are more likely.
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
        named_probabilities = probabilities_of(rows, self._calibration.categories)
        for (index, opinion, ids), row, probabilities in zip(asked, rows, named_probabilities, strict=True):
            opinion.tokens += len(ids)
            if isinstance(row, Refused):
                opinions[index] = row
                continue
            if isinstance(probabilities, Refused):
                opinions[index] = probabilities
                continue
            named = dict(zip(CATEGORIES, probabilities, strict=False))
            if roles[index] == ASSISTANT:
                # A response cannot be a jailbreak: the category is defined for prompts only.
                named.pop(JAILBREAK)
            # Sorted by the numbers of the engine: with four decimals, all nine can be 0, and the first would be named.
            said = dict(zip(CATEGORIES, row, strict=False))
            ranked = sorted(named, key=said.__getitem__, reverse=True)
            opinion.categories = [
                name for rank, name in enumerate(ranked) if rank == 0 or named[name] >= CATEGORY_THRESHOLD
            ]
            opinion.category_probabilities = {name: named[name] for name in ranked[:3]}

    async def _tell_refusals(self, opinions: list[Opinion | Refused], asked: Sequence[Asked], deadline: float) -> None:
        asked = [one for one in asked if opinions[one[0]] is one[1]]  # The categories of the others were refused.
        prompts = [ids + self._after_category[(opinion.categories or [NONE])[0]] for _, opinion, ids in asked]
        rows = await self._probabilities(prompts, self._refusals, self._calibration.refusal, deadline)
        for (index, opinion, _), ids, probabilities in zip(asked, prompts, rows, strict=True):
            opinion.tokens += len(ids)
            if isinstance(probabilities, Refused):
                opinions[index] = probabilities
            else:
                yes, no = probabilities
                opinion.refusal = yes > no

    async def _probabilities(
        self, prompts: Sequence[list[int]], candidates: Sequence[int], temperature: float, deadline: float
    ) -> list[list[float] | Refused]:
        return probabilities_of(await self._score(prompts, candidates, deadline), temperature)

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
