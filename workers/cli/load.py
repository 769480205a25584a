"""`guardline load`: send made-up events, and measure what the workers make of them."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from workers.cli.interrupts import Interrupts
from workers.cli.tables import counted, say
from workers.errors import Misconfigured
from workers.settings import load as load_settings

if TYPE_CHECKING:
    from workers.load.tally import Second

app = typer.Typer()


@app.command("load")
def load_command(
    rate: Annotated[float, typer.Option(min=0.001, help="Records a second.")] = 50.0,
    ramp: Annotated[float, typer.Option(min=0, help="Seconds in which the rate rises from 0 to --rate.")] = 0.0,
    duration: Annotated[float | None, typer.Option(min=0.001, help="End after so many seconds.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many records.")] = None,
    duplicates: Annotated[float, typer.Option(help="The fraction of records that repeat an earlier event.")] = 0.0,
    invalid: Annotated[float, typer.Option(help="The fraction of records that become dead letters.")] = 0.0,
    tenant: Annotated[
        list[str] | None, typer.Option(help="A tenant, or NAME=WEIGHT; may be repeated. By default load.")
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="A language, or TAG=WEIGHT; may be repeated. By default all that it has.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same mix of records.")] = 0,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the last outcomes.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a second; the last one sums up.")] = False,
) -> None:
    """Send made-up events at a rate, and print throughput and latencies each second.

    Ctrl-C ends the sending, and a second Ctrl-C ends the wait for the last outcomes, too.

    A latency is the time from sending a record until its verdict or dead letter is committed and read. Exit code 1 if
    a record has no outcome after --wait, or more than one.
    """
    from workers.load.records import Mix
    from workers.load.run import Load, run
    from workers.load.schedule import steady

    mix = Mix(
        **({"tenants": weights("--tenant", tenant)} if tenant else {}),
        **({"languages": weights("--language", language)} if language else {}),
        duplicates=duplicates,
        invalid=invalid,
        seed=seed,
    )
    load = Load(steady(rate, ramp_s=ramp, duration_s=duration), mix, count, wait)

    def print_second(second: Second) -> None:
        say(orjson.dumps(asdict(second)).decode() if as_json else _line(second))

    with Interrupts() as interrupts:
        summary = run(load_settings(), load, interrupts=lambda: interrupts.count, each_second=print_second)
    if as_json:
        say(orjson.dumps(summary).decode())
    else:
        for line in _sums(summary):
            say(line)
    if summary["is_stopped"]:
        raise typer.Exit(128 + signal.SIGINT)
    if summary["missing"] or summary["doubled"] or summary["disorder"]:
        raise typer.Exit(1)


def weights(flag: str, values: list[str]) -> Mapping[str, float]:
    """Read `NAME` and `NAME=WEIGHT`.

    Raises:
        Misconfigured: a value is neither.
    """
    found: dict[str, float] = {}
    for value in values:
        name, _, weight = value.rpartition("=") if "=" in value else (value, "", "1")
        try:
            found[name] = float(weight)
        except ValueError:
            found[name] = math.nan
        if not name or not math.isfinite(found[name]):
            raise Misconfigured(f"{flag}: {value!r} is neither NAME nor NAME=WEIGHT, as in acme=3")
    return found


def _line(second: Second) -> str:
    return (
        f"{second.at_s:6.1f} s  sent {second.sent_per_s:8,.1f}/s  answered {second.answered_per_s:8,.1f}/s  "
        f"waiting {second.waiting:7,}  {_latencies(second.latency_ms)}"
    )


def _latencies(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "no outcome"
    return "  ".join(f"{name} {value:,.0f} ms" for name, value in found.items())


def _sums(summary: Mapping[str, Any]) -> Iterator[str]:
    decisions = ", ".join(f"{name} {count:,}" for name, count in summary["decisions"].items())
    stopped = "stopped; " if summary["is_stopped"] else ""
    kinds = f"{counted(summary['verdicts'], 'verdict')}, {counted(summary['dead_letters'], 'dead letter')}"
    yield f"{stopped}{counted(summary['sent'], 'record')} sent in {summary['seconds']:,.1f} s"
    yield f"answered {summary['answered']:,} ({summary['answered_per_s']:,.1f}/s): {kinds}"
    yield f"missing {summary['missing']:,}, doubled {summary['doubled']:,}, out of order {summary['disorder']:,}"
    yield f"decisions: {decisions or 'none'}; {counted(summary['duplicates'], 'verdict')} on repeated events"
    yield f"from sent to visible: {_latencies(summary['latency_ms'])}"
    yield f"longest time without a verdict: {summary['longest_silence_s']:,.1f} s"
