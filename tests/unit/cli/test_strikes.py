"""`guardline strikes` without a broker and without Redis."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from workers.cli.app import app
from workers.errors import Misconfigured


@pytest.mark.parametrize(
    ("policy", "flags", "sentence"),
    [
        ("unsafe: review", [], "policy for tenant 'acme': it has no field 'strikes', so there is nothing to count"),
        ("strikes: {weights: 3}", [], "policy for tenant 'acme': strikes.weights: has to be a list"),
        ("strikes: {}", ["--since", "yesterday"], "--since: 'yesterday' is not a time"),
        ("strikes: {}", ["--plot", "plot.jpg"], "--plot: plot.jpg has to end in .png or .svg"),
        ("strikes: {}", ["--plot", "/none/plot.svg"], "--plot: cannot write /none/plot.svg: there is no folder /none"),
    ],
)
def test_what_prevents_a_simulation_is_named(tmp_path: Path, policy: str, flags: list[str], sentence: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(policy)
    result = CliRunner().invoke(app, ["strikes", "simulate", "--tenant", "acme", "--policy", str(file), *flags])
    assert isinstance(result.exception, Misconfigured)
    assert sentence in str(result.exception)


def test_a_plot_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "workers.evaluation.plots", None)
    result = CliRunner().invoke(app, ["strikes", "simulate", "--tenant", "acme", "--plot", "plot.svg"])
    assert isinstance(result.exception, Misconfigured)
    assert "--plot needs matplotlib: " in str(result.exception)
