"""Writes a report: `report.json`, one PNG for each plot, and a self-contained `report.html`.

Needs matplotlib (the extra 'eval').
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from workers.evaluation.counts import Mode
from workers.evaluation.plots import plots_of
from workers.shown import printable

HEADS = {"precision": "precision", "recall": "recall", "false_alarms": "false alarms"}


def write(report: Mapping[str, Any], folder: Path, title: str) -> None:
    """Write all files of a report into a folder."""
    (folder / "report.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
    plots = plots_of(report)
    for name, png in plots.items():
        (folder / f"{name}.png").write_bytes(png)
    environment = Environment(
        loader=PackageLoader("workers.evaluation", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    images = {name: base64.b64encode(png).decode() for name, png in plots.items()}
    page = environment.get_template("report.html.jinja").render(
        report=report, images=images, title=title, modes=[mode.value for mode in Mode]
    )
    (folder / "report.html").write_text(page, encoding="utf-8")


def table_of(report: Mapping[str, Any]) -> Table:
    """Return the figures of all samples and of each group, in per cent, one row for each mode, for 80 columns."""
    interval = Column("F1", no_wrap=True)
    table = Table("", "samples", "scoring", interval, *HEADS.values(), box=SIMPLE_HEAD, collapse_padding=True)
    _add(table, "all", report["all"])
    for field, groups in report["by"].items():
        table.add_section()
        for value, figures in groups.items():
            _add(table, f"{field} {value}", figures)
    return table


def _add(table: Table, name: str, figures: Mapping[str, Any]) -> None:
    labels = [Text(printable(name)), Text(str(figures["samples"]))]
    for mode in Mode:
        scores = figures[mode]
        table.add_row(*labels, mode.value, _interval(scores["f1"]), *(_percent(scores[head]) for head in HEADS))
        labels = [Text(), Text()]


def _percent(figure: Mapping[str, float] | None) -> str:
    return "–" if figure is None else f"{100 * figure['value']:.1f}"


def _interval(figure: Mapping[str, float] | None) -> str:
    interval = "" if figure is None else f" {100 * figure['low']:.1f}–{100 * figure['high']:.1f}"
    return _percent(figure) + interval
