"""`guardline worker`: run a worker process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from workers import settings as settings_module
from workers.cli.report import report
from workers.cli.tables import say
from workers.ctrl_c import HeldBack
from workers.errors import GuardlineError, Misconfigured
from workers.process.logs import log_to_stderr
from workers.settings import Settings

if TYPE_CHECKING:
    from workers.kafka.membership import Member
    from workers.kafka.route import Route

app = typer.Typer(no_args_is_help=True, help="Run a worker, or remove one from its group.")


WorkerId = Annotated[str | None, typer.Option("--id", help="worker.id; two workers must not share it.")]
HttpPort = Annotated[int | None, typer.Option(help="http.port; 0 for any free port.")]


@app.command("moderation")
def worker_moderation(worker_id: WorkerId = None, http_port: HttpPort = None) -> None:
    """Run one moderation worker until a signal. The first signal drains it; a second one ends it at once."""
    settings = started(worker_id, http_port)
    with HeldBack():
        from workers.moderation.worker import Worker

    run_to_its_end(Worker(settings).run())


@app.command("actions")
def worker_actions(worker_id: WorkerId = None, http_port: HttpPort = None) -> None:
    """Deliver verdicts and signals to the endpoints of actions.endpoints until a signal, as webhooks."""
    settings = started(worker_id, http_port)
    with HeldBack():
        from workers.actions.worker import Worker

    run_to_its_end(Worker(settings).run())


@app.command("review")
def worker_review(
    worker_id: Annotated[
        str | None, typer.Option("--id", help="worker.id; a process with the same one replaces this one.")
    ] = None,
    http_port: HttpPort = None,
) -> None:
    """Run the review worker until a signal. Only one works at a time; another one waits for its end."""
    settings = started(worker_id, http_port)
    with HeldBack():
        from workers.review.worker import Worker

    run_to_its_end(Worker(settings).run())


@app.command("streams")
def worker_streams(worker_id: WorkerId = None, http_port: HttpPort = None) -> None:
    """Run one worker that judges answers while they are written, until a signal. A second signal ends it at once."""
    settings = started(worker_id, http_port)
    with HeldBack():
        from workers.streams.worker import Worker

    run_to_its_end(Worker(settings).run())


@app.command("aggregates")
def worker_aggregates(worker_id: WorkerId = None, http_port: HttpPort = None) -> None:
    """Run one worker that counts verdicts and writes signals, until a signal ends it."""
    settings = started(worker_id, http_port)
    with HeldBack():
        from workers.aggregates.worker import Worker

    run_to_its_end(Worker(settings).run())


def started(worker_id: str | None, http_port: int | None) -> Settings:
    """Load the settings of a worker, and begin its log. The worker itself is imported after that: it takes longer."""
    settings = settings_module.load(
        **({"worker": {"id": worker_id}} if worker_id else {}),
        **({"http": {"port": http_port}} if http_port is not None else {}),
    )
    log_to_stderr()
    return settings


def run_to_its_end(work: Coroutine[Any, Any, None]) -> NoReturn:
    """Run a worker in an event loop, then end the process at once: a normal exit waits for threads, which may hang."""
    import uvloop

    code = 0
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(work)
        except GuardlineError as error:
            code = report(error)
        sys.stdout.flush()
        os._exit(code)


class Kind(StrEnum):
    """The workers, by the names of their commands."""

    MODERATION = "moderation"
    AGGREGATES = "aggregates"
    REVIEW = "review"
    ACTIONS = "actions"
    STREAMS = "streams"


@app.command("remove")
def worker_remove(
    worker_id: Annotated[str, typer.Option("--id", help="The worker.id of the worker that will not return.")],
    kind: Annotated[Kind, typer.Option(help="Which worker it is. Of actions, all endpoints.")] = Kind.MODERATION,
) -> None:
    """Remove a worker that will not return from its groups, so that others get its partitions at once."""
    from workers.kafka import membership

    found: list[tuple[Route, Member]] = []
    for route in (routes := _routes(kind, settings_module.load(worker={"id": worker_id}))):
        try:
            found.append((route, membership.static_member(route)))
        except Misconfigured:
            # Of several endpoints, the worker may have left some groups, such as by an earlier run of this command.
            if not found and route is routes[-1]:
                raise
    for route, member in found:
        _remove(route, member)


def _routes(kind: Kind, settings: Settings) -> list[Route]:
    match kind:
        case Kind.MODERATION:
            from workers.kafka.route import of_moderation

            return [of_moderation(settings)]
        case Kind.REVIEW:
            from workers.review.worker import of_review

            return [of_review(settings)]
        case Kind.ACTIONS:
            from workers.actions.route import route_of

            if not settings.actions.endpoints:
                raise Misconfigured("actions.endpoints is empty: name the endpoints whose groups the worker is in")
            return [route_of(endpoint, settings) for endpoint in settings.actions.endpoints]
        case Kind.STREAMS:
            from workers.streams.route import of_streams

            return [of_streams(settings)]
        case Kind.AGGREGATES:
            raise Misconfigured(
                "--kind: the group of the aggregates workers does not know members by their worker.id; the brokers "
                "remove a member that does not return after kafka.session_timeout_s"
            )


def _remove(route: Route, member: Member) -> None:
    from workers.kafka import membership

    worker_id = route.worker_id
    held = ", ".join(member.partitions) or "no partitions"
    say(f"{worker_id} joined the group {route.group} from {member.host} and has {held}.")
    left = membership.remove(route, member)
    if any(one.name == worker_id for one in left):
        say(f"{worker_id} still runs and has joined again: stop it first.")
    else:
        say(f"{worker_id} was removed from the group.")
    for one in left:
        say(f"{one.name}: {', '.join(one.partitions) or 'no partitions'}")
    if not left:
        say("The group has no members now: no worker reads its partitions.")
