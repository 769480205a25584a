"""`guardline forget`: delete what is held of one author."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError

from workers import settings as settings_module
from workers.cli.tables import add_row, print_table, say, table_of
from workers.cli.with_redis import has_policy, with_redis
from workers.errors import GuardlineError, Misconfigured, Unavailable

if TYPE_CHECKING:
    from schemas.forget import Forget
    from workers.kafka.forgetting import Progress
    from workers.kafka.topic_settings import Keeping
    from workers.redis.client import Client
    from workers.settings import Settings

app = typer.Typer()

LOOK_EVERY_S = 0.5
"""Between two questions how far the workers are."""

RUNS = "each process reads the request within a second, and ends the deliveries that wait at their next attempt"
RUNS_NOT = "no worker runs now: a worker that starts reads the request first, and makes none of the author's deliveries"


@app.command("forget")
def forget_command(
    tenant: Annotated[str, typer.Option(help="The tenant of the author.")],
    author: Annotated[str, typer.Option(help="The author's id, as in `author_id` of events.")],
    wait: Annotated[
        float, typer.Option(min=0, help="Wait up to this many seconds until every worker has read it.")
    ] = 0,
) -> None:
    """Delete what is held of one author, and print which topics hold data until their retention ends.

    With --wait the exit code is 1 if a worker has not read the request in time. It acts when it runs again.
    """
    from workers.kafka import forgetting

    request = _request(tenant, author)
    settings = settings_module.load()
    position = forgetting.send(settings, request)
    partition, offset = position
    say(f"request {request.forget_id} is at {partition.topic}/{partition.partition}/{offset}")
    deadline = time.monotonic() + wait
    watch = forgetting.Watch(settings, position)
    try:
        while True:
            found = watch.look()
            waiting = [worker for worker, state in found.items() if not state.is_over]
            if not waiting or time.monotonic() >= deadline:
                break
            time.sleep(LOOK_EVERY_S)
    finally:
        watch.close()
    strikes = _delete_strikes(settings, tenant, author)
    _print(settings, found, strikes, datetime.now(UTC))
    if wait and waiting:
        raise Unavailable(
            f"forget: the group of {' and of '.join(waiting)} has not read the request after {wait:g} s: it acts when "
            "its worker runs again"
        )


def _request(tenant: str, author: str) -> Forget:
    from schemas.forget import Forget

    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    try:
        return Forget(forget_id=secrets.token_hex(16), tenant_id=tenant, author_id=author, requested_at=now)
    except ValidationError as error:
        flag = "--tenant" if error.errors()[0]["loc"] == ("tenant_id",) else "--author"
        raise Misconfigured(f"{flag}: has to have 1 to 256 characters") from None


def _delete_strikes(settings: Settings, tenant: str, author: str) -> str:
    """Delete the author's strikes in Redis; return what has become of them."""
    from workers.redis.strikes import Author, StoredStrikes

    namespace = settings.redis.namespace

    async def delete(redis: Client) -> tuple[bool, bool]:
        stored = StoredStrikes(redis, namespace=namespace, secret=settings.pseudonym_secret)
        were_there = await stored.delete(Author(tenant, author))
        return were_there, were_there or await has_policy(redis, namespace, tenant)

    try:
        were_there, is_known = with_redis(settings.redis, delete)
    except GuardlineError as error:
        return f"not deleted, and they expire: {error}"
    if not is_known:
        say(
            f"nothing of tenant {tenant!r} is known in Redis: it has no policy, and this author no strikes. If another "
            "tenant was meant, make another request: this one changes nothing for others",
            err=True,
        )
    return "deleted" if were_there else "none are there now"


def _print(settings: Settings, progress: dict[str, Progress], strikes: str, now: datetime) -> None:
    from workers.core.holdings import TOPICS, WORKERS, Reach
    from workers.kafka.forgetting import kept

    table = table_of("place", "data of the author", "state")
    for worker, state in progress.items():
        add_row(table, f"worker {worker}", WORKERS[worker], str(state))
    for endpoint, said in _deliveries(settings):
        add_row(table, endpoint, WORKERS["actions"], said)
    add_row(table, "worker moderation", WORKERS["moderation"], "nothing to do")
    add_row(table, "Redis", "strikes", strikes)
    add_row(
        table,
        "Redis, deduplication",
        "keyed hashes of events and contents",
        f"until dedup.event_ttl_s ({settings.dedup.event_ttl_s} s) and dedup.content_ttl_s "
        f"({settings.dedup.content_ttl_s} s) after the event was judged",
    )
    for topic, (setting, keeping) in kept(settings).items():
        holding = TOPICS[setting]
        if holding.reach is not Reach.NOTHING:
            add_row(table, topic, holding.data, _until(keeping, now))
    print_table(table)


def _deliveries(settings: Settings) -> Iterator[tuple[str, str]]:
    """Say for each endpoint what becomes of the author's deliveries that wait."""
    from workers.actions.route import route_of
    from workers.kafka import clients
    from workers.kafka.membership import members

    if not settings.actions.endpoints:
        yield "worker actions", "nothing to do: actions.endpoints is empty"
        return
    admin = clients.admin(settings.kafka)
    for endpoint in settings.actions.endpoints:
        if endpoint.format == "dsa":
            said = "nothing to do: statements of reasons name no author"
        else:
            try:
                does_run = bool(members(route_of(endpoint, settings).kafka, admin))
            except GuardlineError as error:
                said = f"not known: {error}"
            else:
                said = RUNS if does_run else RUNS_NOT
        yield f"worker actions, {endpoint.name}", said


def _until(keeping: Keeping, now: datetime) -> str:
    if keeping.policy == "compact":
        return "until the worker has acted and the broker has compacted the log"
    if keeping.longest_ms is None:
        return "for ever: the topic deletes no record for its age"
    try:
        end = now + timedelta(milliseconds=keeping.longest_ms)
    except OverflowError:
        return "for ever: the topic's retention is longer than a thousand years"
    return f"until {end:%Y-%m-%d %H:%M} UTC at the latest"
