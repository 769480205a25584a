"""Draws the prompts and answers of a training epoch as token ids, in batches of similar length."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cache

from tokenizers import Tokenizer

from infra.nano.data import SEED, Row, balance_languages
from infra.nano.encoder import Floats, Vectors
from infra.nano.evasion import disguise
from infra.nano.prompts import CATEGORIES, SPECIAL, Prompts, answer
from infra.nano.targets import Targets

DRAWN = 16_000
"""Texts of an epoch: few enough that a kill costs little, many enough that batches hold texts of similar length."""
_UNLABELLED_SHARE = 0.5
_RESPONSE_SHARE = 0.2
"""The fraction of texts shown as responses; no text is labelled as one. With fewer, the model learns the refusal line
only by chance."""
_DISGUISED_SHARE = 0.08
_ROUGHENED_SHARE = 0.5
_DROPPED_TOKENS = 0.1
_BROKEN_TOKENS = 0.15
_LONGEST = 1_000


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt and of its answer (none for an unlabelled text), and the targets of the text:
    the three severities' probabilities, and the encoder's vector.
    """

    prompt: list[int]
    answer: list[int]
    severities: Floats
    vector: Vectors

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


class Epochs:
    """The epochs of a training: each is drawn from its number and SEED alone, so that any can be drawn again."""

    def __init__(self, rows: list[Row], targets: Targets, tokenizer: Tokenizer, tokens: int) -> None:
        self._rows = rows
        self._targets = targets
        self._tokens = tokens
        self._weights = balance_languages(rows).tolist()
        self._forced = tokenizer.encode("Safety:").ids
        self._prompts = Prompts(tokenizer)
        self._parts = merges(tokenizer)

    def draw(self, epoch: int, scale: int = 1) -> list[list[Example]]:
        """Draw an epoch's batches, each of at most `scale` times `tokens` padded positions."""
        rng = random.Random(f"{SEED}/{epoch}")  # noqa: S311 - sampling, not a secret
        labelled, all_texts = len(self._rows), len(self._targets.texts)
        unlabelled = int(min(DRAWN, labelled) * _UNLABELLED_SHARE) if all_texts > labelled else 0
        drawn = rng.choices(range(labelled), weights=self._weights, k=min(DRAWN, labelled) - unlabelled)
        drawn += rng.choices(range(labelled, all_texts), k=unlabelled) if unlabelled else []
        texts = [self._targets.texts[index][:_LONGEST] for index in drawn]
        texts = [disguise(text, rng) if rng.random() < _DISGUISED_SHARE else text for text in texts]
        contents = self._prompts.contents(texts)
        examples = [
            self._example(index, self._roughen(content, rng), rng)
            for index, content in zip(drawn, contents, strict=True)
        ]
        return _shuffled_batches(examples, scale * self._tokens, rng)

    @cache  # noqa: B019 - there are some hundred answers, and one Epochs a training
    def _reply(self, severity: str, category: str | None, refusal: str | None) -> list[int]:
        return self._prompts.tokenizer.encode(answer(severity, [category] if category else [], refusal)).ids

    def _roughen(self, content: list[int], rng: random.Random) -> list[int]:
        """Split some words into their parts and drop some, so that the model does not memorise texts."""
        if rng.random() < _ROUGHENED_SHARE:
            content = [part for token in content for part in self._broken(token, rng)]
        if rng.random() < _ROUGHENED_SHARE:
            content = [token for token in content if rng.random() > _DROPPED_TOKENS] or content
        return content

    def _broken(self, token: int, rng: random.Random) -> tuple[int, ...]:
        return self._parts[token] if token in self._parts and rng.random() < _BROKEN_TOKENS else (token,)

    def _example(self, index: int, content: list[int], rng: random.Random) -> Example:
        taught = self._targets.severities[index], self._targets.vectors[index]
        if index >= len(self._rows):
            return Example([*self._prompts.around(content), *self._forced], [], *taught)
        row = self._rows[index]
        is_response = rng.random() < _RESPONSE_SHARE
        # One primary category for each text, as in Qwen3Guard's training; Jailbreak is for prompts only.
        categories = [name for name in CATEGORIES if name in row["categories"]][:1]
        if is_response:
            categories = [name for name in categories if name != "Jailbreak"]
        reply = self._reply(row["safety"], categories[0] if categories else None, "No" if is_response else None)
        return Example(
            [*self._prompts.around(content, "assistant" if is_response else "user"), *self._forced],
            [*reply[len(self._forced) :], SPECIAL.index("<|im_end|>")],
            *taught,
        )


def merges(tokenizer: Tokenizer) -> dict[int, tuple[int, int]]:
    """Give the two parts of each token that the tokenizer has merged."""
    pairs = json.loads(tokenizer.to_str())["model"]["merges"]
    ids = tokenizer.get_vocab()
    return {ids[left + right]: (ids[left], ids[right]) for left, right in pairs}


def _shuffled_batches(examples: list[Example], tokens: int, rng: random.Random) -> list[list[Example]]:
    out: list[list[Example]] = []
    batch: list[Example] = []
    for example in sorted(examples, key=lambda example: len(example) + rng.random() * 6):
        if batch and (len(batch) + 1) * len(example) > tokens:
            out.append(batch)
            batch = []
        batch.append(example)
    out.append(batch)
    rng.shuffle(out)
    return out
