"""Writes the tables of nano-stream, in its card and in README.md, from the figures of its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import infra.nano_stream
from infra.docs.metrics import replaced, table

FIGURES = Path(infra.nano_stream.__file__).parent / "checkpoint" / "figures.json"
MARKER = "<!-- {}: `make generated` writes this table from infra/nano_stream/checkpoint/figures.json -->\n"
HARMLESS = {
    "ordinary": "everyday sentences, requests and comments of public data, harmless answers",
    "authored": "authored harmless texts, hard on purpose",
    "near": "harmless texts of hate-speech and safety data",
}
PLANTED = {"data": "public data", "authored": "authored, hard on purpose", "response": "answers"}
LATENCIES = {
    "early": "too early",
    "onset": "at the onset",
    "within_32": "3 to 32 tokens",
    "within_64": "33 to 64",
    "later": "later",
    "never": "never",
}
Figures = Mapping[str, Any]


def card(page: str, figures: Figures | None = None) -> str:
    """Return the card with its tables."""
    found = figures or json.loads(FIGURES.read_text(encoding="utf-8"))
    groups, planted = found["streams"]["by"]["group"], found["streams"]["by"]["planted"]
    cuts = [
        (text, f"{groups[name]['harmless']:,}", _interval(groups[name]["benign_cuts_per_1000"], 1))
        for name, text in HARMLESS.items()
    ]
    page = _written(page, "benign cuts", ("harmless answers of", "streams", "cut, in 1,000"), cuts)
    kinds = {"all": groups["harmful"], **{text: planted[name] for name, text in PLANTED.items() if name in planted}}
    late = [(name, f"{each['harmful']:,}", *_latencies(each["latency"])) for name, each in kinds.items()]
    head = ("harmful text from", "streams", *LATENCIES.values(), "detected within 32")
    page = _written(page, "latency", head, late)
    f1 = [
        (what, *(_interval(found["streams"]["all"][part][mode]["f1"], 100) for mode in ("strict", "loose")))
        for what, part in (("whole answers", "answers"), ("prefixes", "prefixes"))
    ]
    page = _written(page, "F1", ("F1, %", "strict", "loose"), f1)
    curve = [
        (
            f"{point['threshold']:g}" + (" (recommended)" if point["threshold"] == found["threshold"] else ""),
            *(f"{point[f'{name}_per_1000']:.0f}" for name in ("benign_cuts", "authored_cuts", "near_cuts")),
            *(_percent(point[name]) for name in ("early", "detected_within_32", "never")),
        )
        for point in found["curve"]
    ]
    head = ("threshold", "ordinary cut, in 1,000", "authored", "near", "too early", "detected within 32", "never")
    page = _written(page, "thresholds", head, curve)
    before = [
        (each["tokens"], f"{each['streams']:,}", *(_percent(each[name]) for name in ("early", "detected_within_32")))
        for each in found["before_onset"]
    ]
    page = _written(page, "context", ("tokens before the onset", "streams", "too early", "detected within 32"), before)
    prompts, agreement = found["prompts"], found["int8"]
    shares = [_percent(prompts[name]) for name in ("f1", "found", "false_alarms", "category")]
    page = _written(
        page,
        "prompts",
        ("held-out turns", "F1", "found", "false alarms", "right category"),
        [(f"{prompts['texts']:,}", *shares)],
    )
    return _written(
        page,
        "int8",
        ("compared with", "texts", "tokens", "same severity", "largest difference of a probability"),
        [
            (
                agreement["reference"],
                f"{agreement['texts']:,}",
                f"{agreement['positions']:,}",
                f"{agreement['same_severity']:.2%}",
                f"{agreement['furthest']:.3f}",
            )
        ],
    )


def readme(page: str, figures: Figures | None = None) -> str:
    """Return the README with what nano-stream does with ordinary and with harmful answers."""
    found = figures or json.loads(FIGURES.read_text(encoding="utf-8"))
    groups = found["streams"]["by"]["group"]
    ordinary, harmful = groups["ordinary"], groups["harmful"]
    rows = [
        (
            "ordinary harmless answers: cut",
            f"{ordinary['harmless']:,}",
            _interval(ordinary["benign_cuts_per_1000"], 0.1),
        ),
        (
            "harmful answers: cut within 32 tokens of the harmful part",
            f"{harmful['harmful']:,}",
            _interval(harmful["latency"]["detected_within_32"], 100),
        ),
        ("harmful answers: never cut", f"{harmful['harmful']:,}", _interval(harmful["latency"]["never"], 100)),
    ]
    return _written(page, "nano-stream", ("held-out answers", "number", "%"), rows)


def _written(page: str, name: str, head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return replaced(page, MARKER.format(name), table(head, rows))


def _latencies(latency: Figures) -> list[str]:
    return [*(_percent(latency[name]["value"]) for name in LATENCIES), _interval(latency["detected_within_32"], 100)]


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _interval(figure: Figures, scale: float) -> str:
    value, low, high = (scale * figure[part] for part in ("value", "low", "high"))
    return f"{value:.0f} ({low:.0f}–{high:.0f})"
