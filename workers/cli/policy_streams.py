"""`guardline policy simulate`: what rules of streams would have done with past streams."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from workers import settings as settings_module
from workers.cli.policy import policy_in_force, read_policy
from workers.cli.tables import add_row, counted, print_table, say, say_json, table_of
from workers.cli.times import A_DATE, seconds_of
from workers.errors import Misconfigured

if TYPE_CHECKING:
    from workers.policy.stream_replay import ReplayedStream
    from workers.settings import Settings

app = typer.Typer()
"""Its command is among those of `workers.cli.policy`."""

_MEANINGS = {
    "same": "cut at the same position",
    "earlier": "cut earlier",
    "later": "cut later",
    "only_planned": "cut, and were not",
    "only_recorded": "not cut up to where they were cut",
    "neither": "not cut, as before",
}


@app.command("simulate")
def simulate_command(
    tenant: Annotated[str, typer.Option(help="The tenant.")],
    policy: Annotated[
        Path | None, typer.Option(help="A policy with the field `stream`; by default the one in force.")
    ] = None,
    verdicts: Annotated[
        Path | None,
        typer.Option(help="Stream verdicts as JSON lines; - for standard input. By default topics.stream_verdicts."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(help=f"Only verdicts that were written at this time or later. {A_DATE}")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="For a policy without one; by default that of the checkpoint of streams.model."
        ),
    ] = None,
    stream: Annotated[str | None, typer.Option(help="Print where this stream would have been cut.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Apply a policy's rules of streams to past streams: where each would have been cut. Writes nothing."""
    from workers.policy.policy import CompiledPolicy
    from workers.policy.stream_replay import StreamReplay

    since_s = seconds_of("--since", since)
    if verdicts is not None and since_s is not None:
        raise Misconfigured("--since counts for verdicts of Kafka; a file of --verdicts is read as a whole")
    settings = settings_module.load()
    found = read_policy(tenant, policy) if policy is not None else policy_in_force(settings, tenant)
    rules = CompiledPolicy(found).stream
    if rules.threshold is None and threshold is None:
        threshold = _recommended(settings)
    replay = StreamReplay(tenant, rules, threshold)
    for place, text in _of_file(verdicts) if verdicts is not None else _of_kafka(settings, since_s):
        try:
            replay.add(orjson.loads(text))
        except (ValueError, LookupError, TypeError, AttributeError):
            say(f"{place} is not a stream verdict", err=True)
    if stream is not None:
        _print_stream(replay.streams.get(stream), tenant, stream, as_json=as_json)
    elif as_json:
        say_json(orjson.dumps(replay.report()))
    else:
        _print(replay.report())


def _recommended(settings: Settings) -> float | None:
    from workers.live.guard import recommended_threshold
    from workers.live.load import stream_folder

    return recommended_threshold(stream_folder(settings.streams))


def _of_file(file: Path) -> Iterator[tuple[str, bytes]]:
    try:
        lines = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise Misconfigured(f"--verdicts: cannot read {file}: {error.strerror}") from error
    for number, line in enumerate(lines.splitlines(), 1):
        if line.strip():
            yield f"--verdicts, line {number}", line


def _of_kafka(settings: Settings, since_s: float | None) -> Iterator[tuple[str, bytes]]:
    from workers.core.frames import split
    from workers.kafka.reader import read

    topic = settings.topics.stream_verdicts
    since_ms = None if since_s is None else int(since_s * 1000)
    for message in read(settings.kafka, [topic], from_beginning=True, follow=False, since_ms=since_ms):
        # The reader begins a little earlier.
        if message is None or (since_ms is not None and message.timestamp()[1] < since_ms):
            continue
        yield f"{message.topic()}/{message.partition()}/{message.offset()}", split(message.value() or b"")[1]


def _print(report: dict[str, Any]) -> None:
    say(
        f"{counted(report['streams'], 'stream')} with {counted(report['positions'], 'judged position')}; "
        f"{counted(report['recorded_cuts'], 'cut')} recorded, {report['recorded_unavailable']} unavailable"
    )
    reasons = ", ".join(f"{reason} {count}" for reason, count in report["cuts_by_reason"].items())
    median = "" if report["median_position"] is None else f"; median position {report['median_position']}"
    say(f"{counted(report['cuts'], 'cut')} by these rules{f' ({reasons})' if reasons else ''}{median}")
    table = table_of("streams that would be", "number")
    for name, meaning in _MEANINGS.items():
        add_row(table, meaning, str(report["differences"][name]))
    print_table(table)


def _print_stream(stream: ReplayedStream | None, tenant: str, name: str, *, as_json: bool) -> None:
    if stream is None:
        raise Misconfigured(f"--stream: there is no verdict of stream {name!r} of tenant {tenant!r}")
    cut = stream.cut
    found: dict[str, Any] = {
        "stream_id": name,
        "positions": stream.positions,
        "was_cut": stream.was_cut,
        "was_cut_at": stream.was_cut_at,
        "cut": None
        if cut is None
        else {
            "position": cut.position,
            "reason": cut.reason,
            "severity": cut.severity,
            "categories": list(cut.categories),
        },
    }
    if as_json:
        say_json(orjson.dumps(found))
        return
    before = "was not cut"
    if stream.was_cut:
        before = "was cut" if stream.was_cut_at is None else f"was cut at position {stream.was_cut_at}"
    now = "these rules do not cut it" if cut is None else f"these rules cut it at position {cut.position}: {cut.reason}"
    say(f"{counted(stream.positions, 'judged position')}; it {before}; {now}")
