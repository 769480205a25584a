"""Plots over time as SVG, in the colours of the evaluation's plots. Needs matplotlib (the extra 'eval')."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

COLOURS = ("#1f5fa8", "#d9822b", "#3a8f5c", "#8a4fa3", "#b23a48", "#5b6675")
WIDTH = 7.6
PANEL_HEIGHT = 1.55


@dataclass(frozen=True)
class Line:
    """A line of a panel: points (seconds, value). `is_step`: the value holds until the next point."""

    name: str
    points: Sequence[tuple[float, float]]
    is_step: bool = False


@dataclass(frozen=True)
class Panel:
    """One plot of several lines. `spans` are shaded times (from, to), `marks` are points in time with a name."""

    title: str
    lines: Sequence[Line]
    spans: Sequence[tuple[float, float]] = ()
    marks: Sequence[tuple[float, str]] = ()
    limits: tuple[float, float] | None = field(default=None)


def timeline(panels: Sequence[Sequence[Panel]], heads: Sequence[str] = ()) -> str:
    """Return one SVG: a column of panels for each sequence, all over the time in seconds, with `heads` above them."""
    # Text stays text: the file is smaller, and a search finds it. The salt keeps the ids of two runs equal.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "guardline", "font.size": 9}):
        rows, columns = max(map(len, panels)), len(panels)
        figure = Figure(figsize=(WIDTH * (1.35 if columns > 1 else 1), PANEL_HEIGHT * rows + 0.5), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex="col")
        for column, stack in enumerate(panels):
            for row, panel in enumerate(stack):
                _draw(grid[row][column], panel)
            grid[len(stack) - 1][column].set_xlabel("seconds")
            if heads:
                grid[0][column].annotate(
                    heads[column], (0.5, 1), (0, 22), "axes fraction", "offset points", ha="center", weight="bold"
                )
        out = StringIO()
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _without_prologue(out.getvalue())


def _draw(axes: Any, panel: Panel) -> None:
    for begin, end in panel.spans:
        axes.axvspan(begin, end, color="#000000", alpha=0.06, linewidth=0)
    for number, (at_s, name) in enumerate(panel.marks):
        axes.axvline(at_s, color="#5b6675", linewidth=0.8, linestyle=":")
        # In two rows, so that the names of two short steps do not overlap.
        place = (2, -2 - 9 * (number % 2))
        axes.annotate(name, (at_s, 1), place, ("data", "axes fraction"), "offset points", va="top", fontsize=7)
    for colour, line in zip(COLOURS, panel.lines, strict=False):
        if line.points:
            times, values = zip(*line.points, strict=True)
            style = {"drawstyle": "steps-post"} if line.is_step else {}
            axes.plot(times, values, color=colour, linewidth=1.3, label=line.name, **style)
    axes.set_title(panel.title, loc="left", fontsize=9)
    axes.set_ylim(*(panel.limits or (0, None)))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if len(panel.lines) > 1:
        # Above the panel: lines go everywhere inside.
        axes.legend(loc="lower right", bbox_to_anchor=(1, 0.96), frameon=False, fontsize=8, ncols=len(panel.lines))


def _without_prologue(svg: str) -> str:
    """Return only the element: a page embeds it as it is, and no comment names the program's version."""
    return re.sub(r"\s+$", "", svg[svg.index("<svg") :], flags=re.MULTILINE) + "\n"
