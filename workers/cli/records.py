"""`guardline produce`, `verdicts`, `signals`: put events into the topics, and read what came out."""

from __future__ import annotations

import select
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import orjson
import typer
from rich.progress import Progress

from schemas.taxonomy import Surface
from workers import settings as settings_module
from workers.cli.interrupts import Interrupts
from workers.cli.tables import console, counted, json_line, say
from workers.core.frames import split
from workers.errors import Misconfigured

if TYPE_CHECKING:
    from confluent_kafka import Message

app = typer.Typer()

Line: TypeAlias = Callable[[dict[str, Any]], str]
"""Gives the line of a record."""

Follow = Annotated[bool, typer.Option("--follow", help="Go on with new ones, until Ctrl-C.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
FromBeginning = Annotated[
    bool, typer.Option("--from-beginning", help="With --follow: begin with those that are there.")
]


@app.command("produce")
def produce_command(
    file: Annotated[str, typer.Argument(help="JSON lines of events; - for standard input.")],
    tenant: Annotated[str | None, typer.Option(help="Take rows as events: the tenant of those without one.")] = None,
    surface: Annotated[Surface, typer.Option(help="With --tenant: the surface of rows without one.")] = Surface.CHAT,
    streams: Annotated[
        bool, typer.Option("--streams", help="The lines are stream events, for topics.streams.")
    ] = False,
) -> None:
    """Put events into the input topics of the moderation worker, keyed by conversation, author or id.

    With --streams, put stream events into the input topic of the streams worker, keyed by stream.
    """
    from workers.kafka.produce import messages, produce

    settings = settings_module.load()
    if streams:
        from workers.streams.producing import stream_events

        kind = stream_events(settings)
    else:
        kind = messages(settings)

    try:
        if file != "-" and not Path(file).is_file():
            raise Misconfigured(f"{file} is not a file")
        with (
            nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb") as lines,
            Progress(console=console, disable=file == "-" or not console.is_terminal) as progress,
            Interrupts(is_reading=True) as interrupts,
        ):
            task = progress.add_task("events", total=None if file == "-" else Path(file).stat().st_size)
            count, bad, first, is_stopped = produce(
                settings,
                kind,
                interrupts.reading(lines),
                lambda step: progress.advance(task, step),
                None if tenant is None else _filling(tenant, None if streams else surface),
            )
    except OSError as error:
        raise Misconfigured(f"cannot read {file}: {error.strerror}") from error
    say(f"{'stopped; ' if is_stopped else ''}{counted(count, 'record')} produced", err=True)
    if kind.destination is None:
        say("not checked whether they are valid events, because events.mapping is set", err=True)
    if bad:
        one = f"is not a valid {kind.noun} and becomes a dead letter"
        more = f"are not valid {kind.noun}s and become dead letters"
        say(f"{bad} of them {one if bad == 1 else more}: {first}", err=True)
    if is_stopped:
        raise typer.Exit(128 + signal.SIGINT)


def _filling(tenant: str, surface: Surface | None) -> Callable[[int], dict[str, str]]:
    """Give the fields of a row by its number. `surface`: None for stream events, which have none."""

    def fill(row: int) -> dict[str, str]:
        own = {} if surface is None else {"event_id": f"row-{row}", "surface": surface.value}
        return {"tenant_id": tenant, **own}

    return fill


@app.command("verdicts")
def verdicts_command(
    follow: Follow = False,
    as_json: AsJson = False,
    from_beginning: FromBeginning = False,
    streams: Annotated[
        bool,
        typer.Option("--streams", help="Verdicts and interventions of streams, by the streams worker and the gateway."),
    ] = False,
) -> None:
    """Print verdicts. Without --follow, those that are there, in the order of their times."""
    of_streams = {"stream_verdicts": _stream_line, "interventions": _intervention_line}
    _show(of_streams if streams else {"verdicts": _line}, follow=follow, as_json=as_json, from_beginning=from_beginning)


@app.command("signals")
def signals_command(follow: Follow = False, as_json: AsJson = False, from_beginning: FromBeginning = False) -> None:
    """Print signals of the aggregates. Without --follow, those that are there, in the order of their times."""
    _show({"signals": _signal_line}, follow=follow, as_json=as_json, from_beginning=from_beginning)


def _show(lines: Mapping[str, Line], *, follow: bool, as_json: bool, from_beginning: bool) -> None:
    """Print the records of topics. `lines`: by the name of each topic's setting, what gives the line of a record."""
    from workers.kafka.reader import read

    settings = settings_module.load()
    settings_of = {getattr(settings.topics, name): name for name in lines}
    with Interrupts(is_reading=True) as interrupts:
        try:
            if follow and not from_beginning:
                nouns = " and ".join(name.replace("_", " ") for name in lines)
                say(f"waiting for new {nouns}; --from-beginning shows those that are there, too", err=True)
            for message in read(
                settings.kafka, [*settings_of], from_beginning=from_beginning or not follow, follow=follow
            ):
                interrupts.check()
                if message is not None:
                    setting = settings_of[message.topic()]
                    _print(message, setting, lines[setting], as_json=as_json)
                elif _is_reader_gone():
                    return
        except (KeyboardInterrupt, Exception):
            if not interrupts.count:
                raise
            # Whatever the client made of the KeyboardInterrupt: the person asked for the end.
            raise typer.Exit(128 + signal.SIGINT) from None


def _print(message: Message, setting: str, line_of: Line, *, as_json: bool) -> None:
    value = split(message.value() or b"")[1]
    try:
        line = json_line(value) if as_json else line_of(orjson.loads(value))
    except (ValueError, LookupError, TypeError):
        place = f"{message.topic()}/{message.partition()}/{message.offset()}"
        noun = setting.removesuffix("s").replace("_", " ")
        article = "an" if noun[0] in "aeiou" else "a"
        say(f"{place} is not {article} {noun}: another program writes to topics.{setting}", err=True)
    else:
        say(line)


def _is_reader_gone() -> bool:
    """Whether the reader of standard output has closed it, as `| head -1` does. Otherwise only a write would fail."""
    output = select.poll()
    try:
        output.register(sys.stdout, 0)  # 0: an error is told of without being asked for.
    except (OSError, ValueError):
        return False  # Standard output is none of the system's files.
    return any(event & select.POLLERR for _, event in output.poll(0))


def _line(verdict: dict[str, Any]) -> str:
    assessment = verdict["assessment"]
    opinion = "no judgement" if assessment is None else " ".join([assessment["severity"], *assessment["categories"]])
    again = f"  (repeats {verdict['duplicate_of']})" if verdict["duplicate_of"] else ""
    if verdict.get("supersedes"):
        again += f"  (by {verdict.get('decided_by') or 'a person'}, supersedes {verdict['supersedes']})"
    about = f"{verdict['tenant_id']}  {verdict['surface']}  {verdict['event_id']}"
    return f"{verdict['decision']:<6}  {about}  {opinion}{again}"


def _stream_line(verdict: dict[str, Any]) -> str:
    from schemas.stream import SEVERITIES
    from workers.policy.streams import highest

    found = ""
    if (prompt := verdict["prompt"]) is not None:
        found += "  " + " ".join(["prompt", prompt["severity"], *prompt["categories"]])
    if risk := verdict["risk"]:
        worst, _, at = max((likeliest := highest(token), token[likeliest], at) for at, token in enumerate(risk))
        category = verdict["categories"][at]  # None if the severity is Safe.
        answer = f"{SEVERITIES[worst]} {category}" if category else SEVERITIES[worst]
        found += f"  answer {answer}, the worst of {counted(len(risk), 'token')}"
    about = f"{verdict['tenant_id']}  {verdict['stream_id']}  {verdict['seq']} {verdict['kind']}"
    return f"{verdict['outcome']:<14}  {about}{found}  shown {verdict['shown_chars']}"


def _intervention_line(intervention: dict[str, Any]) -> str:
    reason, position = intervention["reason"], intervention["position"]
    if reason == "prompt":
        why = "cut at the user's turn:"
    elif reason == "unavailable":
        why = f"not judged from token {position} on"
    else:
        why = f"cut at token {position}: {reason}"
    about = f"{intervention['tenant_id']}  {intervention['stream_id']}  {intervention['seq']}"
    found = " ".join([why, *intervention["categories"]])
    return f"{'intervention':<14}  {about}  {found}  shown {intervention['shown_chars']}"


def _signal_line(signal: dict[str, Any]) -> str:
    level = f"{signal['value']:g} {'at least' if signal['state'] == 'raised' else 'below'} {signal['threshold']:g}"
    return f"{signal['state']:<7}  {signal['tenant_id']}  {signal['threshold_name']}  {signal['subject']}  {level}"
