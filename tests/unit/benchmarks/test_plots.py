"""Plots of the benchmarks."""

from __future__ import annotations

import re

from tests.benchmarks.plots import Line, Panel, timeline


def test_a_plot_is_one_element_without_anything_from_other_hosts_and_the_same_each_time() -> None:
    panels = [Panel("lag", [Line("a", [(0, 1), (1, 2)]), Line("empty", [])], [(0, 1)], [(0.5, "restart")])]
    svg = timeline([panels, panels], ["left", "right"])
    assert svg.startswith("<svg")
    assert set(re.findall(r"https?://[\w.]+", svg)) == {"http://www.w3.org"}
    assert "restart" in svg
    assert svg == timeline([panels, panels], ["left", "right"])
