"""`guardline mapping`: try a mapping on records, and write the shipped mappings."""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer
from msgspec.structs import replace

from workers import settings as settings_module
from workers.cli.tables import say
from workers.errors import Misconfigured, Skipped, Undecodable

if TYPE_CHECKING:
    from workers.core.decode import Decoded

app = typer.Typer(no_args_is_help=True, help="Mappings, which turn records of any shape into events.")

MAX_SHOWN_CHARS = 80


@app.command("examples")
def examples_command(
    name: Annotated[str | None, typer.Argument(help="A platform, such as discord. Without it: all of them.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder: NAME.yaml and some records, NAME.jsonl, go there.")
    ] = None,
) -> None:
    """Print the mapping of a platform, or write it to a folder together with records to try it on."""
    from workers.mapping.examples import NAMES, read

    if name is not None and name not in NAMES:
        raise Misconfigured(f"there is no mapping {name!r} (one of: {', '.join(NAMES)})")
    if out is None:
        for line in read(f"{name}.yaml").splitlines() if name else NAMES:
            say(line)
        return
    files = [f"{one}.{kind}" for one in ([name] if name else NAMES) for kind in ("yaml", "jsonl")]
    if there := [file for file in files if (out / file).exists()]:
        raise Misconfigured(f"{out / there[0]} exists already: remove it, or choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        (out / file).write_text(read(file), encoding="utf-8")
        say(str(out / file))


@app.command("test")
def try_command(
    file: Annotated[Path, typer.Argument(help="A mapping.")],
    records: Annotated[str, typer.Argument(help="JSON lines, one record each; - for standard input.")],
    topic: Annotated[str, typer.Option(help="The topic that the records come from.")] = "",
    key: Annotated[str | None, typer.Option(help="The key of each record.")] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, a header of each record; may be repeated.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object for each event, with all its fields.")
    ] = False,
) -> None:
    """Show the events of each record, or why it has none. The exit code is 1 if no record has an event."""
    from workers.core.records import Record, Source, TopicPartition
    from workers.mapping.mapping import load

    mapping, events = load(file), settings_module.load().events
    events = events.model_copy(update={"mapping": file})
    origin = TopicPartition(topic or "TOPIC", 0)
    headers = [_header(one) for one in header or ()]
    counts = Counter[str]()
    with _opened(records) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            counts["records"] += 1
            try:
                found = mapping.events(
                    Record(line.rstrip(b"\r\n"), None if key is None else key.encode(), headers, topic),
                    events,
                    Source(origin, 0, number),
                )
            except (Skipped, Undecodable) as error:
                kind = "skipped" if isinstance(error, Skipped) else "dead letter"
                counts[kind] += 1
                _print_none(number, kind, error, as_json=as_json)
                continue
            counts["events"] += len(found)
            for one in found:
                shown = one
                if "event_id" in one.ignored_fields:
                    event_id = one.event["event_id"].replace(
                        f"{origin.topic}/0/{number}", f"{origin.topic}/PARTITION/OFFSET", 1
                    )
                    shown = replace(one, event={**one.event, "event_id": event_id})
                _print_event(number, shown, as_json=as_json)
    say(
        f"{counts['records']} records: {counts['events']} events, {counts['skipped']} records skipped, "
        f"{counts['dead letter']} dead letters",
        err=True,
    )
    if not counts["events"]:
        raise typer.Exit(1)


def _opened(records: str) -> AbstractContextManager[IO[bytes]]:
    if records == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(records).open("rb")
    except OSError as error:
        raise Misconfigured(f"RECORDS: cannot read {records}: {error.strerror}") from None


def _header(written: str) -> tuple[str, bytes | None]:
    name, is_there, value = written.partition("=")
    if not is_there or not name:
        raise Misconfigured(f"--header: {written!r} is not NAME=VALUE")
    return name, value.encode()


def _print_event(number: int, decoded: Decoded, *, as_json: bool) -> None:
    event = decoded.event
    if as_json:
        say(_json({"record": number, "event": event, "ignored_fields": decoded.ignored_fields}))
        return
    text = event["text"]
    shown = text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"
    # `repr` escapes every character that could move the cursor or end the line.
    say(f"{number:>4}  event        {event['event_id']!r} of {event['tenant_id']!r}, {event['surface']}: {shown!r}")
    others = {name: value for name, value in event.items() if name not in ("event_id", "tenant_id", "surface", "text")}
    if others:
        say(f"{'':>19}{', '.join(f'{name}: {value!r}' for name, value in others.items())}")
    if "event_id" in decoded.ignored_fields:
        say(f"{'':>19}no event_id: the id will be {event['event_id']}")
    if ignored := [name for name in decoded.ignored_fields if name != "event_id"]:
        say(f"{'':>19}ignored, because they cannot be read: {', '.join(ignored)}")


def _print_none(number: int, kind: str, error: Skipped | Undecodable, *, as_json: bool) -> None:
    if as_json:
        say(_json({"record": number, kind.replace(" ", "_"): error.reason, "detail": error.detail}))
        return
    say(f"{number:>4}  {kind:<11}  {error.reason}: {error.detail}")


def _json(value: Any) -> str:
    return json.dumps(value)  # In ASCII: a sender's control characters do not reach the terminal.
