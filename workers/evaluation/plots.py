"""The plots of reports. Needs matplotlib (the extra 'eval'); never opens a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from schemas.taxonomy import Severity
from workers.evaluation.counts import Mode
from workers.shown import printable

COLOURS = {Mode.STRICT.value: "#1f5fa8", Mode.LOOSE.value: "#d9822b"}
SEVERITIES = [severity.value for severity in Severity]
DPI = 130

THRESHOLD_COLOURS = ("#3a9a5b", "#d9822b", "#b3261e", "#6b4fa0") * 4
"""One for each threshold that a policy may have."""
LOGARITHMIC_FROM = 50
"""With so many authors, the axis of their number is logarithmic."""


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
    return _drawn(figure)


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
    return _drawn(figure)


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
    return _drawn(figure)


def strikes_plot(report: Mapping[str, Any], kind: str) -> bytes:
    """Return the plot of `guardline strikes simulate` as `svg` or `png`: how many authors had how many strikes."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    steps, colours = report["at_least"], iter(THRESHOLD_COLOURS)
    if steps:
        values, authors = zip(*steps, strict=True)
        axes.step([0, *values], [authors[0], *authors], where="pre", color=COLOURS["strict"], linewidth=1.6)
    else:
        axes.text(0.5, 0.5, "no author has a strike", ha="center", va="center", transform=axes.transAxes, color="grey")
    for threshold in report["thresholds"]:
        label = f"{threshold['at']:g} ({_plain(threshold['name'])}): {threshold['authors']:,} authors"
        axes.axvline(threshold["at"], color=next(colours), linewidth=1.2, linestyle="--", label=label)
    axes.set_yscale("log" if steps and steps[0][1] >= LOGARITHMIC_FROM else "linear")
    axes.set_ylim(bottom=0.8 if axes.get_yscale() == "log" else 0)
    axes.set_xlim(left=0)
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    axes.set(xlabel="most strikes of an author", ylabel="authors with at least so many")
    axes.set_title(f"Strikes at tenant {_plain(report['tenant_id'])}: {report['authors']:,} authors", fontsize=11)
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)
    if report["thresholds"]:
        axes.legend(loc="upper right", frameon=True, framealpha=0.9)
    return _drawn(figure, kind)


def _plain(name: str) -> str:
    """Return a name that somebody chose, without formulas and control characters."""
    return printable(name).replace("$", r"\$")


def _drawn(figure: Figure, kind: str = "png") -> bytes:
    out = BytesIO()
    figure.savefig(out, format=kind, dpi=DPI)
    return out.getvalue()
