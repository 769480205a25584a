"""`guardline actions`: what became of deliveries, and statements of reasons as a file."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from workers import settings as settings_module
from workers.cli.action_calls import endpoint_of, endpoints_of, warn_without_topic
from workers.cli.files import replacing
from workers.cli.tables import add_row, counted, print_table, say, say_json, table_of
from workers.cli.times import A_DATE, window_of
from workers.errors import MISSING_CODE, Misconfigured
from workers.settings import Settings

if TYPE_CHECKING:
    from workers.actions.reconcile import Compared, State
    from workers.settings.action_sections import Endpoint

app = typer.Typer(
    no_args_is_help=True, help="Test endpoints, find and repeat deliveries, and export statements of reasons."
)

NOT_TRIED = "it was not tried, because the endpoint fails"

MAX_SHOWN = 20
"""How many ids of each state are printed without --json."""

Since = Annotated[str | None, typer.Option(help=f"Only records written at this time or later. {A_DATE}")]
Until = Annotated[str | None, typer.Option(help=f"Only records written before this time. {A_DATE}")]


@app.command("reconcile")
def actions_reconcile(
    since: Since = None,
    until: Until = None,
    endpoint: Annotated[list[str] | None, typer.Option(help="Only this endpoint; may be repeated.")] = None,
    resend: Annotated[bool, typer.Option("--resend", help="Make the deliveries that are missing.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object for each delivery that did not arrive.")
    ] = False,
) -> None:
    """Name the verdicts and signals that did not arrive: pending, given up, or missing.

    Exit code 3 if some are missing. The worker may run meanwhile.
    """
    settings = settings_module.load()
    since_ms, until_ms = _window(since, until)
    from workers.actions.formats import format_of
    from workers.actions.reconcile import State, compare
    from workers.actions.redeliver import resend as make
    from workers.actions.secrets import Secrets

    missing = 0
    chosen = _chosen(settings, endpoint or [])
    table = table_of("endpoint", *State, "unreadable")
    for one in chosen:
        form = format_of(one, Secrets(one), settings.events.carry_attributes)
        found = compare(settings, one, form, since_ms=since_ms, until_ms=until_ms)
        add_row(table, one.name, *map(str, found.counts.values()), str(found.unreadable))
        (_print_json if as_json else _print)(found)
        left = len(found.missing)
        if resend and left:
            failed = asyncio.run(make(settings, one, form, found.missing))
            say(f"{one.name}: made {left - len(failed)} of the {left} that were missing", err=True)
            for delivery in failed:
                say(
                    f"{one.name}: {delivery.kind} {delivery.id} did not arrive: {delivery.reason or NOT_TRIED}",
                    err=True,
                )
            left = len(failed)
        missing += left
    if not as_json:
        print_table(table)
    warn_without_topic(settings, chosen)
    if missing:
        sys.exit(MISSING_CODE)


@app.command("statements")
def actions_statements(
    out: Annotated[Path, typer.Option(help="The file to write: a statement of reasons a line, as JSON.")],
    since: Since = None,
    until: Until = None,
    endpoint: Annotated[str | None, typer.Option(help="The endpoint with format dsa, if there are several.")] = None,
) -> None:
    """Write the statements of reasons of the verdicts in Kafka, as the endpoint would send them, to a file."""
    settings = settings_module.load()
    since_ms, until_ms = _window(since, until)
    from workers.actions.dsa import Dsa
    from workers.actions.reading import Reading, inputs_of
    from workers.actions.reconcile import records
    from workers.core.records import Finished
    from workers.errors import Undecodable

    one = _with_statements(settings, endpoint)
    assert one.statements is not None  # The settings require it.
    reading = Reading(one, settings.topics, Dsa(one.statements, dict))
    written: set[str] = set()
    unreadable = 0
    with replacing("--out", out) as file:
        for record, source in records(settings, [*inputs_of(one, settings.topics)], since_ms, until_ms):
            try:
                found = reading(record, source)
            except Undecodable:
                unreadable += 1
                continue
            for delivery in () if isinstance(found, Finished) else found:
                puid = orjson.loads(delivery.body)["puid"]
                if puid not in written:
                    written.add(puid)
                    file.write(delivery.body + b"\n")
    say(f"wrote {counted(len(written), 'statement')} to {out}")
    if unreadable:
        say(f"{counted(unreadable, 'record')} could not be read as verdicts", err=True)


def _window(since: str | None, until: str | None) -> tuple[int | None, int | None]:
    since_s, until_s = window_of(since, until)
    return (None if since_s is None else int(since_s * 1000)), (None if until_s is None else int(until_s * 1000))


def _chosen(settings: Settings, names: list[str]) -> list[Endpoint]:
    """Return the endpoints of these names, or all.

    Raises:
        Misconfigured: there is none, or a name is unknown.
    """
    return [endpoint_of(settings, name) for name in names] or endpoints_of(settings)


def _with_statements(settings: Settings, name: str | None) -> Endpoint:
    """Return the endpoint whose settings say what a statement holds.

    Raises:
        Misconfigured: there is none, or the name has to decide.
    """
    found = [one for one in _chosen(settings, [name] if name else []) if one.format == "dsa"]
    if not found:
        raise Misconfigured("actions.endpoints: no endpoint with the format dsa: its `statements` are needed")
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise Misconfigured(f"--endpoint: several endpoints have the format dsa: name one of {names}")
    return found[0]


def _print(found: Compared) -> None:
    shown: Counter[State] = Counter()
    for state, delivery in found.others:
        shown[state] += 1
        if shown[state] <= MAX_SHOWN:
            topic, partition = delivery.source.origin
            place = f"{topic}/{partition}/{delivery.source.offset}"
            say(f"{state}: {found.endpoint}, {delivery.kind} {delivery.id}, {place}")
    for state, count in shown.items():
        if count > MAX_SHOWN:
            say(f"{state}: {found.endpoint}, {count - MAX_SHOWN} more; --json prints all")


def _print_json(found: Compared) -> None:
    for state, delivery in found.others:
        topic, partition = delivery.source.origin
        document = {
            "endpoint": found.endpoint,
            "state": state,
            "kind": delivery.kind,
            "id": delivery.id,
            "tenant_id": delivery.tenant_id,
            "source": {"topic": topic, "partition": partition, "offset": delivery.source.offset},
        }
        say_json(orjson.dumps(document))
