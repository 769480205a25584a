"""Measures a checkpoint on held-out authored texts: by language, category, capability and habit of writing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import Qwen3ForCausalLM

from infra.nano.authored import Authored
from infra.nano.network import hidden_at
from infra.nano.prompts import CATEGORIES, SEVERITIES, Prompts, answer, batches_by_length, labels_of
from schemas.taxonomy import Severity

Figures = dict[str, float | int | None]
Groups = dict[str, Figures]
_BATCH_TOKENS = 8_000


@dataclass(frozen=True)
class Judgements:
    """What a checkpoint says of texts: probabilities of the severities, shape (texts, 3), and the answers' lines."""

    severities: npt.NDArray[np.float64]
    categories: list[str]
    """Asked as if the severity were the likelier of the two harmful ones, of harmless texts too."""
    refusals: list[str | None]
    """Of an assistant's message alone."""


def judge(texts: list[Authored], model: Qwen3ForCausalLM, tokenizer: Tokenizer) -> Judgements:
    """Let a checkpoint judge `texts`, each with its earlier turns."""
    asked = _Asked(texts, model.eval(), tokenizer)
    severities = np.zeros((len(texts), len(SEVERITIES)))
    categories = [""] * len(texts)
    said = Judgements(severities, categories, [None] * len(texts))
    with torch.no_grad():
        for batch in tqdm(batches_by_length(asked.lengths, _BATCH_TOKENS), desc="authored"):
            severities[batch] = torch.softmax(asked.scores(batch, asked.labels.severities), -1).numpy()
            for severity in (1, 2):
                at = [number for number in batch if severities[number, 1:].argmax() + 1 == severity]
                behind = answer(SEVERITIES[severity], []).removesuffix(" None")
                found = asked.scores(at, asked.labels.categories, behind).argmax(-1).tolist()
                for number, category in zip(at, found, strict=True):
                    categories[number] = CATEGORIES[category]
            for number in (number for number in batch if texts[number].is_response):
                likeliest = int(severities[number].argmax())
                named = [categories[number]] if likeliest else []
                behind = answer(SEVERITIES[likeliest], named, "No").removesuffix(" No")
                yes_or_no = asked.scores([number], asked.labels.refusals, behind).argmax(-1)
                said.refusals[number] = ("Yes", "No")[int(yes_or_no)]
    return said


class _Asked:
    """The prompts of texts, and the scores of labels behind them."""

    def __init__(self, texts: list[Authored], model: Qwen3ForCausalLM, tokenizer: Tokenizer) -> None:
        self._model, self._tokenizer, self.labels = model, tokenizer, labels_of(tokenizer)
        made = Prompts(tokenizer)
        self._forced = made.forced
        self._prompts = [made.conversation(made.contents(list(each.turns))) + made.forced for each in texts]
        self.lengths = [len(prompt) for prompt in self._prompts]

    def scores(self, numbers: list[int], labels: list[int], behind: str = "") -> torch.Tensor:
        """Give the scores of `labels` behind each prompt, followed by an answer that begins with `behind`."""
        if not numbers:
            return torch.zeros(0, len(labels))
        more = self._tokenizer.encode(behind).ids[len(self._forced) :] if behind else []
        sequences = [self._prompts[number] + more for number in numbers]
        hidden = hidden_at(self._model, sequences, [[len(each) - 1] for each in sequences])
        return hidden @ self._model.lm_head.weight[labels].T


def everyday(texts: list[Authored], judged: Judgements) -> dict[str, Groups]:
    """Give the figures of all texts, and by each of their properties."""
    ways: dict[str, Callable[[Authored], str | None]] = {
        "overall": lambda _: "all",
        "language": lambda each: each.language,
        "category": lambda each: each.category,
        "beside": lambda each: each.beside if each.severity is Severity.SAFE else None,
        "capability": lambda each: f"{each.severity}: {each.capability}",
        "habit": lambda each: each.habit,
        "form": lambda each: "response" if each.is_response else "earlier turns" if len(each.turns) > 1 else "one turn",
    }
    out: dict[str, Groups] = {}
    for name, way in ways.items():
        groups: dict[str, list[int]] = defaultdict(list)
        for number, each in enumerate(texts):
            if (group := way(each)) is not None:
                groups[group].append(number)
        out[name] = {group: _figures(texts, judged, groups[group]) for group in sorted(groups)}
    return out


def _figures(texts: list[Authored], judged: Judgements, numbers: list[int]) -> Figures:
    """Give the share of texts that are right, Safe against the rest, and what it consists of.

    `category` is the share of the found texts with the right category; `refusal` is that of the responses.
    """
    harmful = np.array([texts[number].severity is not Severity.SAFE for number in numbers])
    flagged = judged.severities[numbers].argmax(axis=1) > 0
    found = [number for number, is_found in zip(numbers, harmful & flagged, strict=True) if is_found]
    responses = [number for number in numbers if texts[number].is_response]
    return {
        "texts": len(numbers),
        "right": _share(harmful == flagged),
        "found": _share(flagged[harmful]),
        "false_alarms": _share(flagged[~harmful]),
        "category": _share(np.array([judged.categories[number] == texts[number].category for number in found])),
        "refusal": _share(np.array([judged.refusals[number] == texts[number].refusal for number in responses])),
    }


def _share(which: npt.NDArray[np.bool_]) -> float | None:
    return round(float(which.mean()), 3) if len(which) else None
