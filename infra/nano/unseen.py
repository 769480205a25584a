"""Measures the recipe on sources that it was not trained on: `python -m infra.nano.unseen --data FILE --out FILE.json`.

Trains one model for each fold, without whole sources and related ones, and the n-gram baseline. The shipped checkpoint
was trained in the same way on all sources, so these models show how it performs on new sources.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from sklearn.metrics import f1_score, roc_auc_score

from infra.nano.authored import Part
from infra.nano.authored import read as read_authored
from infra.nano.corpus import corpus
from infra.nano.data import FOLDS, Row, hold_out_sources, is_harmful, read
from infra.nano.measure import prompts_of, score_torch
from infra.nano.ngrams import Floats, Ngrams, predict
from infra.nano.prompts import SEVERITIES, first_tokens
from infra.nano.train import Texts, add_recipe, digest_of, recipe_of, train

_FEWEST_TEXTS = 20
Figures = dict[str, float | int | None]


def yardstick(rows: list[Row], unseen: list[Row]) -> Floats:
    """Give the n-gram model's probability of harm for the unseen texts."""
    ngrams = Ngrams(rows)
    return predict(ngrams.of(rows), rows, ngrams.of(unseen))


def compare(rows: list[Row], harm: Floats, flagged: Floats, yard: Floats, groups: list[str]) -> dict[str, Figures]:
    """Give for each group of texts the figures of both models, Safe against the rest.

    `harm` and `yard` are probabilities of harm; `flagged` is 1 where the model's most likely label is not Safe.
    """
    gold = is_harmful(rows)
    names = np.array(groups)
    out: dict[str, Figures] = {}
    for name in sorted(set(groups)):
        at = names == name
        if at.sum() < _FEWEST_TEXTS:
            continue
        has_both = 0 < gold[at].sum() < at.sum()
        out[name] = {
            "texts": int(at.sum()),
            "safe": int((~gold[at]).sum()),
            "auc": _rounded(roc_auc_score(gold[at], harm[at])) if has_both else None,
            "ngram_auc": _rounded(roc_auc_score(gold[at], yard[at])) if has_both else None,
            "macro_f1": _rounded(f1_score(gold[at], flagged[at] > 0, average="macro")) if has_both else None,
            "ngram_macro_f1": _rounded(f1_score(gold[at], yard[at] > 0.5, average="macro")) if has_both else None,
            "recall": _rounded(flagged[at][gold[at]].mean()) if gold[at].any() else None,
            "false_alarms": _rounded(flagged[at][~gold[at]].mean()) if not gold[at].all() else None,
        }
    return out


def _rounded(value: float) -> float:
    return round(float(value), 3)


def main() -> None:
    """Train and measure fold by fold. Finished folds are cached, so that a kill costs little."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the gzipped JSON lines that training reads")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--folds", type=int, nargs="+", default=[*range(FOLDS)], help="in this order")
    add_recipe(parser)
    arguments = parser.parse_args()
    recipe = recipe_of(arguments)
    rows = read(arguments.data)
    texts = Texts(read_authored(Part.TRAINING), rows, corpus())
    begun = arguments.cache / f"unseen.{digest_of(recipe, texts)}.json"
    figures: dict[str, object] = json.loads(begun.read_text()) if begun.exists() else {}
    for fold in arguments.folds:
        if f"fold {fold}" in figures:
            continue
        seen, unseen = hold_out_sources(rows, fold)
        state = begun.with_suffix(f".{fold}.pt")
        model, tokenizer = train(replace(texts, rows=seen), recipe, arguments.cache, state, arguments.device)
        scores = score_torch(model, prompts_of(unseen, tokenizer), first_tokens(tokenizer, SEVERITIES))
        harm, flagged = 1 - scores[:, 0], (scores.argmax(-1) > 0).astype(np.float64)
        yard = yardstick(seen, unseen)
        result = {
            by: compare(unseen, harm, flagged, yard, groups)
            for by, groups in (
                ("overall", ["all"] * len(unseen)),
                ("lang", [row["lang"] for row in unseen]),
                ("source", [row["source"] for row in unseen]),
            )
        }
        figures[f"fold {fold}"] = result
        arguments.cache.mkdir(parents=True, exist_ok=True)
        begun.write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        state.unlink()
        print(json.dumps(result["overall"]))
    arguments.out.write_text(
        json.dumps({"recipe": asdict(recipe), **figures}, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )
    begun.unlink()


if __name__ == "__main__":
    main()
