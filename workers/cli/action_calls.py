"""`guardline actions test` and `redeliver`: the commands that call an endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from workers import settings as settings_module
from workers.cli.tables import say
from workers.cli.times import A_DATE, window_of
from workers.errors import GuardlineError, Misconfigured
from workers.process.logs import log_to_stderr
from workers.settings import Endpoint, Settings
from workers.shown import printable

app = typer.Typer()
"""Its commands are among those of `workers.cli.actions`."""

MAX_SHOWN = 300
"""How many characters of an answer are printed."""

LOOK_S = 3.0
"""How long a test of an endpoint waits for Kafka."""

REASONS = ("refused", "expired", "gone")

Name = Annotated[str, typer.Option("--endpoint", help="The name of the endpoint in actions.endpoints.")]


@app.command("test")
def actions_test(name: Name) -> None:
    """Make one signed call of the type guardline.test to an endpoint, and print what it answered."""
    settings = settings_module.load()
    endpoint = endpoint_of(settings, name)
    from workers.actions.redeliver import send_test

    answer, took_s = asyncio.run(send_test(endpoint))
    text = answer.body[:MAX_SHOWN].decode("utf-8", "replace")
    say(f"{name} answered {answer.status} after {took_s * 1000:.0f} ms{': ' if text else ''}{printable(text)}")
    warn_without_topic(settings, [endpoint])
    if not 200 <= answer.status < 300:
        raise typer.Exit(1)


@app.command("redeliver")
def actions_redeliver(
    name: Name,
    reason: Annotated[
        list[str] | None, typer.Option(help="Only those given up for this reason; may be repeated.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help=f"Only dead letters written at this time or later. {A_DATE}")
    ] = None,
    until: Annotated[str | None, typer.Option(help=f"Only dead letters written before this time. {A_DATE}")] = None,
) -> None:
    """Make the deliveries of an endpoint's dead letters again, each once, even if you repeat the command."""
    for one in reason or ():
        if one not in REASONS:
            raise Misconfigured(f"--reason: there is no reason {one!r} (one of: {', '.join(REASONS)})")
    begin_s, end_s = window_of(since, until)
    settings = settings_module.load()
    endpoint = endpoint_of(settings, name)
    log_to_stderr()
    from workers.actions.redeliver import Redelivered, redeliver
    from workers.kafka.replay import Stored

    def is_wanted(stored: Stored) -> bool:
        return (
            (not reason or stored.letter.reason in reason)
            and (begin_s is None or stored.timestamp_ms >= begin_s * 1000)
            and (end_s is None or stored.timestamp_ms < end_s * 1000)
        )

    counts = Redelivered()
    asyncio.run(redeliver(settings, endpoint, is_wanted, counts))
    others = {
        "delivered before": counts.delivered_before,
        "not made, because the author was forgotten": counts.forgotten,
        f"not accepted ({counts.reason})": counts.failed,
        "left out by --reason, --since and --until": counts.unwanted,
        "that hold no delivery": counts.not_deliveries,
    }
    said = "".join(f"; {count} {words}" for words, count in others.items() if count)
    say(f"{counts.delivered} made again{said}", err=True)
    if counts.is_stopped:
        say(f"stopped, because the endpoint fails: {counts.reason}. Run the command again to go on", err=True)
    if counts.is_stopped or counts.failed:
        raise typer.Exit(1)


def endpoint_of(settings: Settings, name: str) -> Endpoint:
    """Return an endpoint by its name.

    Raises:
        Misconfigured: there is none of this name.
    """
    known = [one.name for one in endpoints_of(settings)]
    endpoint = settings.actions.endpoint(name)
    if endpoint is None:
        raise Misconfigured(f"--endpoint: actions.endpoints has no {name!r} (one of: {', '.join(known)})")
    return endpoint


def endpoints_of(settings: Settings) -> list[Endpoint]:
    """Return all endpoints.

    Raises:
        Misconfigured: there is none.
    """
    if not settings.actions.endpoints:
        raise Misconfigured("actions.endpoints is empty: name an endpoint, see docs/actions.md")
    return settings.actions.endpoints


def warn_without_topic(settings: Settings, endpoints: Sequence[Endpoint]) -> None:
    """Say which topics of dead letters are missing: the worker does not start without them. Blocks for `LOOK_S`."""
    from workers.kafka import clients

    try:
        present = clients.present_topics(clients.admin(settings.kafka), settings.kafka, LOOK_S)
    except GuardlineError as error:
        say(f"not checked whether the topics of dead letters are there: {error}", err=True)
        return
    for topic in (one.dead_letters for one in endpoints):
        if topic not in present:
            say(f"{topic} is missing: the worker needs it; make it with `guardline topics create`", err=True)
