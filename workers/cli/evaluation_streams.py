"""`guardline eval stream`. The command imports its modules when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from workers.cli.tables import add_row, print_table, say, table_of
from workers.errors import Misconfigured

_FILE = typer.Argument(metavar="FILE", help="JSON lines of answers with gold labels: see docs/evaluation.md.")
_HEADS = {
    "early": "too early",
    "onset": "at the onset",
    "within_32": "to 32",
    "within_64": "to 64",
    "later": "later",
    "never": "never",
}
"""The parts of the harmful answers, by when they are cut."""
_MODES = ("strict", "loose")


def stream_command(
    file: Annotated[Path, _FILE],
    out: Annotated[Path | None, typer.Option(help="The folder of the report; by default FILE.report.")] = None,
    by: Annotated[list[str] | None, typer.Option(help="A field to group by; may be repeated.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="A policy in YAML or JSON, whose `stream` decides; by default the built-in one.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0.0001, max=1, help="In the place of the policy's, and of the checkpoint's.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=100, help="Resamples for the intervals.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of the resampling.")] = 0,
) -> None:
    """Measure how soon harmful answers are cut, and how many harmless ones. A file without outputs is judged first."""
    from schemas.policy import StreamPolicy
    from workers.cli.policy import read_policy
    from workers.evaluation.stream_samples import has_outputs, stream_samples
    from workers.evaluation.stream_score import Rules, score_streams

    if not file.is_file():
        raise Misconfigured(f"no such file: {file}")
    rules = StreamPolicy() if policy is None else read_policy(policy.stem, policy).stream
    if threshold is not None:
        rules = rules.model_copy(update={"threshold": threshold})
    folder = out or file.with_name(file.name + ".report")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Misconfigured(f"{folder}: {error.strerror}: name another folder with --out") from error
    recommended, bad = None, 0
    if not has_outputs(file):
        from workers.evaluation.stream_judged import judge_streams

        file, recommended, bad = judge_streams(file, folder)
    report = score_streams(stream_samples(file), Rules(rules, recommended), by=by or (), rounds=rounds, seed=seed)
    report["not_judged"] = bad
    (folder / "streams.json").write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    print_table(cuts_table(report))
    print_table(f1_table(report))
    say(f"{folder}: streams.json", err=True)


def cuts_table(report: Mapping[str, Any]) -> Table:
    """Return when answers are cut: the harmless ones in 1,000, the harmful ones in per cent, with intervals."""
    table = table_of("", "harmless", "benign cuts in 1,000", "harmful", *_HEADS.values(), "detected within 32")
    for name, found in _groups(report):
        latency = found["latency"]
        late = [_percent(latency and latency[each]) for each in _HEADS]
        within = latency and latency["detected_within_32"]
        counts = (str(found["harmless"]), _with_interval(found["benign_cuts_per_1000"], 1), str(found["harmful"]))
        add_row(table, name, *counts, *late, _with_interval(within, 100))
    return table


def f1_table(report: Mapping[str, Any]) -> Table:
    """Return the F1 of whole answers and of prefixes in per cent, with intervals."""
    places = [(what, mode) for what in ("answers", "prefixes") for mode in _MODES]
    table = table_of("F1", "streams", *(f"{what}, {mode}" for what, mode in places))
    for name, found in _groups(report):
        parts = (found[what][mode]["f1"] for what, mode in places)
        add_row(table, name, str(found["streams"]), *(_with_interval(part, 100) for part in parts))
    return table


def _groups(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    named = [(f"{name} {value}", found) for name, groups in report["by"].items() for value, found in groups.items()]
    return [("all", report["all"]), *named]


def _percent(figure: Mapping[str, float] | None) -> str:
    return "–" if figure is None else f"{100 * figure['value']:.1f}"


def _with_interval(figure: Mapping[str, float] | None, scale: float) -> str:
    if figure is None:
        return "–"
    value, low, high = (scale * figure[part] for part in ("value", "low", "high"))
    return f"{value:.1f} ({low:.1f}–{high:.1f})"
