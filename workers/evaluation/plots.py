"""The plots of a report, as PNG. Needs matplotlib (the extra 'eval'); never opens a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure

from schemas.taxonomy import Severity
from workers.evaluation.counts import Mode

COLOURS = {Mode.STRICT.value: "#1f5fa8", Mode.LOOSE.value: "#d9822b"}
SEVERITIES = [severity.value for severity in Severity]
DPI = 130


def plots_of(report: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the plots by name, without those for which the report has no figures."""
    plots = {"confusion": _confusion(report["all"]["table"])}
    if "reliability" in report["all"]["strict"]:
        plots["reliability"] = _reliability(report["all"])
    for field, groups in report["by"].items():
        if len(groups) > 1:
            lines = {value: {mode: figures[mode]["f1"] for mode in COLOURS} for value, figures in groups.items()}
            lines = {value: line for value, line in lines.items() if None not in line.values()}
            if lines:
                plots[f"f1-by-{field}"] = _intervals(f"F1 by {field}", lines, COLOURS)
    lines = {name: {"": figures["f1"]} for name, figures in report["categories"].items() if figures["f1"]}
    if lines:
        plots["f1-by-category"] = _intervals("F1 by category", lines, {"": COLOURS["strict"]})
    return plots


def _confusion(table: Sequence[Sequence[int]]) -> bytes:
    figure = Figure(figsize=(4.6, 4), layout="constrained")
    axes = figure.subplots()
    shares = [[count / max(1, sum(row)) for count in row] for row in table]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for y, row in enumerate(table):
        for x, count in enumerate(row):
            colour = "white" if shares[y][x] > 0.55 else "black"
            axes.text(x, y, f"{count}\n{shares[y][x]:.0%}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(SEVERITIES)), SEVERITIES)
    axes.set_yticks(range(len(SEVERITIES)), SEVERITIES)
    axes.set(xlabel="the guard said", ylabel="gold", title="Severity, fraction of each row")
    return _png(figure)


def _reliability(figures: Mapping[str, Any]) -> bytes:
    figure = Figure(figsize=(4.6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1, linestyle="--")
    for mode, colour in COLOURS.items():
        means, shares, counts = zip(*figures[mode]["reliability"], strict=True)
        error = figures[mode]["calibration_error"]
        axes.plot(means, shares, color=colour, linewidth=1, label=f"{mode}, error {error:.3f}")
        largest = max(counts)
        axes.scatter(means, shares, [8 + 90 * count / largest for count in counts], color=colour)
    axes.set(xlabel="probability of a flag", ylabel="fraction flagged in the gold", title="Calibration")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes.legend(loc="upper left", frameon=False)
    return _png(figure)


def _intervals(title: str, lines: Mapping[str, Mapping[str, Mapping[str, float]]], colours: Mapping[str, str]) -> bytes:
    figure = Figure(figsize=(6.4, 1.1 + 0.3 * len(lines)), layout="constrained")
    axes = figure.subplots()
    for index, (series, colour) in enumerate(colours.items()):
        offset = (index - (len(colours) - 1) / 2) * 0.26
        figures = [line[series] for line in lines.values()]
        values = [one["value"] for one in figures]
        # The interval of a skewed figure may not contain the figure; an error bar cannot have a negative length.
        below = [max(0.0, one["value"] - one["low"]) for one in figures]
        above = [max(0.0, one["high"] - one["value"]) for one in figures]
        places = [place + offset for place in range(len(lines))]
        axes.errorbar(values, places, xerr=[below, above], fmt="o", ms=4, lw=1.4, color=colour, label=series or None)
    axes.set_yticks(range(len(lines)), list(lines))
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set(xlim=(0, 1), xlabel="F1, with its 95 % interval", title=title)
    axes.grid(axis="x", color="#dddddd")
    if len(colours) > 1:
        figure.legend(loc="outside right upper", frameon=False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    out = BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    return out.getvalue()
