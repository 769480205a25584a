"""Writes the tables of what guard-nano gets wrong: README.md and its card, from the figures of its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import infra.nano
from infra.docs.metrics import replaced, table

FIGURES = Path(infra.nano.__file__).parent / "checkpoint" / "figures.json"
WORST = "<!-- mistakes: `make generated` writes this table from infra/nano/checkpoint/figures.json -->\n"
"""The table of the README: the whole hold-out, and where the guard is least often right."""
ALL = "<!-- {}: `make generated` writes this table from infra/nano/checkpoint/figures.json -->\n"
"""A table of the card: all groups of one kind."""
UNSEEN_FIGURES = FIGURES.with_name("unseen.json")
UNSEEN = "<!-- {}: `make generated` writes this table from infra/nano/checkpoint/unseen.json -->\n"
"""A table of the card about sources that a model was not trained on: `folds`, or `folds by language`."""
UNSEEN_COLUMNS = {
    "auc": "AUC",
    "ngram_auc": "n-gram AUC",
    "macro_f1": "macro F1",
    "ngram_macro_f1": "n-gram macro F1",
}
KINDS = {
    "overall": "texts",
    "language": "language",
    "category": "harmful texts",
    "beside": "harmless texts beside",
    "capability": "capability",
    "habit": "habit",
    "form": "form",
}
"""What the groups of each kind are called at the head of their table."""
CAPABILITIES = {
    "advance": "sexual advances",
    "chat": "chat slang",
    "counter": "counter-speech",
    "doxxing": "other people's data",
    "falsehood": "falsehoods about public matters",
    "help": "requests for help",
    "indirect": "harm that is only implied",
    "negation": "harm that is denied",
    "question": "questions",
    "quote": "quotes",
    "reclaimed": "reclaimed words",
    "self": "self-harm",
    "teasing": "teasing between friends",
    "verbs": "violent verbs that harm nobody",
}
"""What the names of capabilities mean where they do not say it themselves."""
SHOWN_WORST = 8
FEWEST_TEXTS = 20
SPLIT = {
    "strict_f1": "strict F1",
    "constant_strict_f1": "constant answer",
    "loose_f1": "loose F1",
    "macro_f1": "macro F1",
    "auc": "AUC",
}
HEAD = ("texts", "right", "found", "false alarms", "right category")
Figures = dict[str, Any]


def readme(page: str, figures: Figures | None = None) -> str:
    """Return the README with its table: all held-out texts, then the kinds that the guard most often gets wrong."""
    groups = _read(figures)["authored"]["holdout"]
    kinds = {name: found for name, found in groups["capability"].items() if found["texts"] >= FEWEST_TEXTS}
    worst = sorted(kinds, key=lambda name: (kinds[name]["right"], name))[:SHOWN_WORST]
    chosen = {"all texts": groups["overall"]["all"], **{_described(name): kinds[name] for name in worst}}
    rows = [(name, f"{found['texts']:,}", f"{1 - found['right']:.0%}") for name, found in chosen.items()]
    return replaced(page, WORST, table(("held-out texts", "number", "wrong"), rows))


def card(page: str, figures: Figures | None = None) -> str:
    """Return the card with its tables: those of the random split, and of the authored texts that were held out."""
    found = _read(figures)
    for kind, head in KINDS.items():
        groups = found["authored"]["holdout"][kind]
        rows = [_row(_described(name) if ": " in name else name, each) for name, each in groups.items()]
        page = replaced(page, ALL.format(kind), table((head, *HEAD), rows))
    overall = {"overall": found["overall"], "overall, int8": found["int8"]}
    largest_first = dict(sorted(found["lang"].items(), key=lambda item: -int(item[1]["texts"])))
    for kind, groups in (
        ("split", overall),
        ("split by language", largest_first),
        ("split by source", found["source"]),
    ):
        rows = [(name, f"{each['texts']:,}", *map(_score, map(each.get, SPLIT))) for name, each in groups.items()]
        page = replaced(page, ALL.format(kind), table((kind.removeprefix("split by "), "texts", *SPLIT.values()), rows))
    return page


def unseen(page: str, figures: Figures | None = None) -> str:
    """Return the card with its tables of the folds, each measured by a model that saw none of the fold's sources."""
    found = figures or json.loads(UNSEEN_FIGURES.read_text(encoding="utf-8"))
    folds = {name.removeprefix("fold "): each for name, each in sorted(found.items()) if name.startswith("fold ")}
    overall = [each["overall"]["all"] for each in folds.values()]
    rows = [_fold(name, each["overall"]["all"]) for name, each in folds.items()]
    means = [sum(each[column] for each in overall) / len(overall) for column in UNSEEN_COLUMNS]
    rows.append(("**mean**", "", *(f"**{mean:.3f}**" for mean in means)))
    page = replaced(page, UNSEEN.format("folds"), table(("fold", "texts", *UNSEEN_COLUMNS.values()), rows))
    rows = [
        (number, *_fold(lang, each))
        for number, fold in folds.items()
        for lang, each in fold["lang"].items()
        if each["auc"] is not None
    ]
    head = ("fold", "language", "texts", *UNSEEN_COLUMNS.values())
    return replaced(page, UNSEEN.format("folds by language"), table(head, rows))


def _fold(name: str, found: Figures) -> tuple[str, ...]:
    return name, f"{found['texts']:,}", *(_score(found[column]) for column in UNSEEN_COLUMNS)


def _described(name: str) -> str:
    severity, _, capability = name.partition(": ")
    return f"{severity}: {CAPABILITIES.get(capability, capability)}"


def _read(figures: Figures | None) -> Figures:
    found: Figures = figures or json.loads(FIGURES.read_text(encoding="utf-8"))
    return found


def _score(score: float | None) -> str:
    return "–" if score is None else f"{score:.3f}"


def _row(name: str, found: Figures) -> tuple[str, ...]:
    shares = (found[share] for share in ("right", "found", "false_alarms", "category"))
    return name, f"{found['texts']:,}", *("–" if share is None else f"{share:.0%}" for share in shares)
