"""Measures a checkpoint on the held-out texts: `python -m infra.nano.measure --data FILE --checkpoint FOLDER`.

Writes FOLDER/figures.json: scores of hf/ overall, by language and by source, how often ct2/ gives the same label, and
the figures of the authored texts that were not trained on.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import ctranslate2
import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import f1_score, roc_auc_score
from tokenizers import Tokenizer
from tqdm import tqdm
from transformers import Qwen3ForCausalLM

from infra.nano.authored import Part
from infra.nano.authored import read as read_authored
from infra.nano.data import Row, hold_out_rows, read
from infra.nano.everyday import everyday, judge
from infra.nano.prompts import SEVERITIES, Prompts, batches_by_length, first_tokens

Scores = npt.NDArray[np.float64]
"""Shape (texts, 3): probability of Safe, Controversial, Unsafe."""
Figures = dict[str, float | int | None]
_FEWEST_TEXTS = 20
_BATCH_TOKENS = 8_000
_LEAST_SAID = 0.5
"""The least total probability of the severities after `Safety:`. A worker does not start with a model that predicts
something else there, even if the severities are well ranked."""


def prompts_of(rows: list[Row], tokenizer: Tokenizer) -> list[list[int]]:
    """Give the ids of each text's prompt, up to the forced `Safety:`."""
    made = Prompts(tokenizer)
    return [made.around(content) + made.forced for content in made.contents([row["text"] for row in rows])]


def score_torch(model: Qwen3ForCausalLM, prompts: list[list[int]], severity_ids: list[int]) -> Scores:
    """Score prompts that end with the forced `Safety:` by the transformers checkpoint.

    Ends the program if the model predicts something else than a severity there, because the scores would hide it.
    """
    model.eval()
    scores, said = np.zeros((len(prompts), len(severity_ids))), np.zeros(len(prompts))
    with torch.no_grad():
        for batch in tqdm(batches_by_length([len(p) for p in prompts], _BATCH_TOKENS), desc="transformers"):
            # Padding is on the right and attention is causal: what follows the last token cannot change it.
            ids = torch.zeros(len(batch), max(len(prompts[i]) for i in batch), dtype=torch.long)
            for row, index in enumerate(batch):
                ids[row, : len(prompts[index])] = torch.tensor(prompts[index])
            hidden = model.model(input_ids=ids).last_hidden_state
            last = torch.tensor([len(prompts[i]) - 1 for i in batch])
            logits = model.lm_head(hidden[torch.arange(len(batch)), last]).float()
            said[batch] = torch.softmax(logits, -1)[:, severity_ids].sum(-1).numpy()
            scores[batch] = torch.softmax(logits[:, severity_ids], -1).numpy()
    if said.mean() < _LEAST_SAID:
        raise SystemExit(
            f"behind 'Safety:' the model says one of the severities with a probability of {said.mean():.4f}: "
            "it has not learnt the answer's format"
        )
    return scores


def score_ct2(folder: Path, tokenizer: Tokenizer, prompts: list[list[int]], severity_ids: list[int]) -> Scores:
    """Score the same prompts by the int8 folder."""
    generator = ctranslate2.Generator(str(folder), compute_type="int8", intra_threads=2)
    scores = np.zeros((len(prompts), len(severity_ids)))
    # One length a batch: with max_length=1, generate_batch of CTranslate2 4.8 gives right logits only for the shortest
    # prompts of a batch (ran at float32: 30 % of the labels changed, none with each prompt alone).
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, prompt in enumerate(prompts):
        by_length[len(prompt)].append(index)
    for batch in tqdm(by_length.values(), desc="ctranslate2"):
        results = generator.generate_batch(
            [[tokenizer.id_to_token(token) for token in prompts[index]] for index in batch],
            max_length=1,
            return_logits_vocab=True,
            include_prompt_in_result=False,
        )
        for index, result in zip(batch, results, strict=True):
            logits = np.array(result.logits[0], dtype=np.float64).reshape(-1)[severity_ids]
            weights = np.exp(logits - logits.max())
            scores[index] = weights / weights.sum()
    return scores


def figures(rows: list[Row], scores: Scores) -> dict[str, Figures | dict[str, Figures]]:
    """Give the scores overall, and by language and by source where at least 20 texts are held out."""
    gold = np.array([SEVERITIES.index(row["safety"]) for row in rows])
    return {
        "overall": _figures(gold, scores),
        "lang": _grouped([row["lang"] for row in rows], gold, scores),
        "source": _grouped([row["source"] for row in rows], gold, scores),
    }


def _grouped(names: list[str], gold: npt.NDArray[np.int64], scores: Scores) -> dict[str, Figures]:
    groups = {name: np.array([other == name for other in names]) for name in sorted(set(names))}
    return {name: _figures(gold[at], scores[at]) for name, at in groups.items() if at.sum() >= _FEWEST_TEXTS}


def _figures(gold: npt.NDArray[np.int64], scores: Scores) -> Figures:
    guess = scores.argmax(-1)
    unsafe = int((gold > 0).sum())
    # A curve needs texts of both kinds.
    auc = roc_auc_score(gold > 0, 1 - scores[:, 0]) if 0 < unsafe < len(gold) else None
    return {
        "texts": len(gold),
        "strict_f1": _rounded(f1_score(gold > 0, guess > 0, zero_division=0)),
        "constant_strict_f1": _rounded(2 * unsafe / (unsafe + len(gold))),
        "loose_f1": _rounded(f1_score(gold == 2, guess == 2, zero_division=0)),
        "macro_f1": _rounded(f1_score(gold, guess, average="macro", zero_division=0)),
        "auc": None if auc is None else _rounded(auc),
    }


def _rounded(value: float) -> float:
    return round(float(value), 3)


def measure(data: Path, checkpoint: Path) -> None:
    """Measure `checkpoint` on the texts of `data` that training held out, and write its figures.json."""
    _, rows = hold_out_rows(read(data))
    tokenizer = Tokenizer.from_file(str(checkpoint / "hf" / "tokenizer.json"))
    severity_ids = first_tokens(tokenizer, SEVERITIES)
    prompts = prompts_of(rows, tokenizer)
    model = Qwen3ForCausalLM.from_pretrained(str(checkpoint / "hf"), dtype=torch.float32)
    scores = score_torch(model, prompts, severity_ids)
    int8 = score_ct2(checkpoint / "ct2", tokenizer, prompts, severity_ids)
    authored = {part: read_authored(part) for part in (Part.DEVELOPMENT, Part.HOLDOUT)}
    by_part = {part: everyday(texts, judge(texts, model, tokenizer)) for part, texts in authored.items()}
    agreement = _rounded((scores.argmax(-1) == int8.argmax(-1)).mean())
    result = {
        **figures(rows, scores),
        "int8": {"same_label": agreement, **figures(rows, int8)["overall"]},
        "authored": by_part,
    }
    (checkpoint / "figures.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    shown = {part: by["overall"]["all"] for part, by in by_part.items()}
    print(json.dumps({"overall": result["overall"], "int8": result["int8"], **shown}, indent=1))


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the gzipped JSON lines that training read")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a folder with hf/ and ct2/")
    arguments = parser.parse_args()
    measure(arguments.data, arguments.checkpoint)


if __name__ == "__main__":
    main()
