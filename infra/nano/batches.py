"""Draws the prompts and answers of a training epoch as token ids, in batches of similar length."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass
from functools import cache

import numpy as np
from tokenizers import Tokenizer

from infra.nano.data import SEED
from infra.nano.e5 import Floats
from infra.nano.evasion import disguise, plain_habit
from infra.nano.lessons import Kind, Lesson, Lessons
from infra.nano.prompts import CATEGORIES, SEVERITIES, SPECIAL, Prompts, answer
from infra.nano.targets import Targets

DRAWN = 8_000
"""Texts of an epoch: few enough that a kill costs little, many enough that batches hold texts of similar length."""
_SHARES = {Kind.AUTHORED: 0.47, Kind.DATA: 0.16, Kind.CORPUS: 0.03, Kind.MIXTURE: 0.34}
_RESPONSE_SHARE = 0.1
"""The fraction of the data's texts shown as an assistant's message, none of which is a refusal. With fewer, the model
learns to write the refusal line only by chance."""
_TAUGHT_RESPONSE_SHARE = 0.4
"""The same while whole answers are taught."""
_DISGUISED_SHARE = 0.06
_ROUGHENED_SHARE = 0.4
_DROPPED_TOKENS = 0.1
_BROKEN_TOKENS = 0.15


@dataclass(frozen=True)
class Reply:
    """The ids of an answer behind `Safety:`, and the numbers of those that name the category and the refusal."""

    ids: list[int]
    category_at: int
    refusal_at: int | None


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt, up to `Safety:`, and the answer (none for an unlabelled text), with the text's targets.

    The category is asked behind an answer that is not Safe, and the refusal where it is known.
    """

    prompt: list[int]
    reply: Reply | None
    severities: Floats
    vector: Floats
    categories: Floats | None
    refusal: str | None

    def __len__(self) -> int:
        return len(self.prompt) + (len(self.reply.ids) if self.reply else 0)


class Epochs:
    """The epochs of a training: each is drawn from its number and the seed alone, so that any can be drawn again."""

    def __init__(self, lessons: Lessons, targets: Targets, tokenizer: Tokenizer, size: int, seed: int = SEED) -> None:
        self._lessons = lessons
        self._targets = targets
        self._size = size
        self._seed = seed
        self._numbers = {kind: lessons.of(kind).tolist() for kind in Kind}
        self._sums = {kind: np.cumsum(lessons.weights[numbers]).tolist() for kind, numbers in self._numbers.items()}
        self._prompts = Prompts(tokenizer)
        self._forced = self._prompts.forced
        self._parts = merges(tokenizer)

    def draw(self, epoch: int, scale: int = 1, *, teach_answers: bool = False) -> list[list[Example]]:
        """Draw an epoch's batches, each of `scale` times `size` texts; with more responses to teach whole answers."""
        rng = random.Random(f"{self._seed}/{epoch}")  # noqa: S311 - sampling, not a secret
        kinds = [kind for kind in Kind if self._numbers[kind]]
        drawn = Counter(rng.choices(kinds, weights=[_SHARES[kind] for kind in kinds], k=DRAWN))
        numbers = [
            number
            for kind in kinds
            for number in rng.choices(self._numbers[kind], cum_weights=self._sums[kind], k=drawn[kind])
        ]
        responses = _TAUGHT_RESPONSE_SHARE if teach_answers else _RESPONSE_SHARE
        examples = [self._example(number, responses, rng) for number in numbers]
        return _shuffled_batches(examples, scale * self._size, rng)

    def _example(self, number: int, responses: float, rng: random.Random) -> Example:
        lesson, targets = self._lessons.lessons[number], self._targets
        contents = [self._content(turn, lesson, rng) for turn in lesson.turns]
        taught = targets.severities[number], targets.vectors[number]
        if lesson.kind in (Kind.CORPUS, Kind.MIXTURE):
            return Example([*self._prompts.around(contents[0]), *self._forced], None, *taught, None, None)
        refusal = lesson.refusal
        if lesson.kind is Kind.DATA and rng.random() < responses and not _is_jailbreak(lesson):
            refusal = "No"
            prompt = self._prompts.around(contents[0], "assistant")
        else:
            prompt = self._prompts.conversation(contents)
        if lesson.severity > 0 and lesson.category < 0:
            # A harmful text of unknown category has no whole answer.
            return Example([*prompt, *self._forced], None, *taught, None, None)
        category = CATEGORIES[lesson.category] if lesson.severity > 0 else None
        return Example(
            [*prompt, *self._forced],
            self._reply(SEVERITIES[lesson.severity], category, refusal),
            *taught,
            targets.categories[number] if category else None,
            refusal,
        )

    def _content(self, turn: str, lesson: Lesson, rng: random.Random) -> list[int]:
        if rng.random() < _DISGUISED_SHARE:
            turn = disguise(turn, rng)
        elif lesson.kind is Kind.AUTHORED:
            turn = plain_habit(turn, rng)
        (content,) = self._prompts.contents([turn])
        return self._roughen(content, rng)

    @cache  # noqa: B019 - there are some hundred answers, and one Epochs a training
    def _reply(self, severity: str, category: str | None, refusal: str | None) -> Reply:
        encode = self._prompts.tokenizer.encode
        whole = answer(severity, [category] if category else [], refusal)
        ids = [*encode(whole).ids[len(self._forced) :], SPECIAL.index("<|im_end|>")]
        asked = len(encode(answer(severity, []).removesuffix(" None")).ids) - len(self._forced)
        refused = len(encode(whole.removesuffix(f" {refusal}")).ids) - len(self._forced) if refusal else None
        return Reply(ids, asked, refused)

    def _roughen(self, content: list[int], rng: random.Random) -> list[int]:
        """Split some words into their parts and drop some, so that the model does not memorise texts."""
        if rng.random() < _ROUGHENED_SHARE:
            content = [part for token in content for part in self._broken(token, rng)]
        if rng.random() < _ROUGHENED_SHARE:
            content = [token for token in content if rng.random() > _DROPPED_TOKENS] or content
        return content

    def _broken(self, token: int, rng: random.Random) -> tuple[int, ...]:
        return self._parts[token] if token in self._parts and rng.random() < _BROKEN_TOKENS else (token,)


def _is_jailbreak(lesson: Lesson) -> bool:
    """Say whether the category is the one for prompts only."""
    return lesson.category == CATEGORIES.index("Jailbreak")


def merges(tokenizer: Tokenizer) -> dict[int, tuple[int, int]]:
    """Give the two parts of each token that the tokenizer has merged."""
    pairs = json.loads(tokenizer.to_str())["model"]["merges"]
    ids = tokenizer.get_vocab()
    return {ids[left + right]: (ids[left], ids[right]) for left, right in pairs}


def _shuffled_batches(examples: list[Example], size: int, rng: random.Random) -> list[list[Example]]:
    ordered = sorted(examples, key=lambda example: len(example.prompt) + rng.random() * 4)
    batches = [ordered[at : at + size] for at in range(0, len(ordered) - size + 1, size)] or [ordered]
    rng.shuffle(batches)
    return batches
