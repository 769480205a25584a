"""`guardline review`: the items of the review worker, and whether any is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from schemas.review_state import ReviewStatus
from workers import settings as settings_module
from workers.cli.tables import add_row, counted, print_table, say, say_json, table_of
from workers.cli.times import A_DATE, seconds_of
from workers.errors import MISSING_CODE, Misconfigured

if TYPE_CHECKING:
    from workers.review.item import Item
    from workers.settings import Settings

app = typer.Typer(no_args_is_help=True, help="List review items, and find those that are missing.")

MAX_SHOWN = 20
"""How many ids are printed without --json."""


@app.command("list")
def review_list(
    tenant: Annotated[str | None, typer.Option(help="Only items of this tenant.")] = None,
    status: Annotated[ReviewStatus | None, typer.Option(help="Only items with this status.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the items, those whose turn comes first at the beginning. Their content is not shown."""
    of_tenant = [item for item in _items(settings_module.load()).values() if tenant is None or item.tenant_id == tenant]
    if tenant is not None and not of_tenant:
        say(f"no review item of tenant {tenant!r} is known", err=True)
    items = [item for item in of_tenant if status is None or item.status == status]
    items.sort(key=lambda item: item.turn_at)
    if as_json:
        for item in items:
            say_json(_without_content(item))
        return
    table = table_of("item", "tenant", "language", "status", "deadline", "decision", "on lease")
    for item in items:
        due = datetime.fromtimestamp(item.due_at / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        lease = "" if item.lease is None else item.lease.by
        add_row(
            table, item.verdict_id, item.tenant_id, item.language or "", item.status, due, item.current_decision, lease
        )
    print_table(table)


@app.command("show")
def review_show(
    verdict_id: Annotated[str, typer.Argument(help="The id of the item, or of its newest verdict.")],
) -> None:
    """Print one item as JSON, with its history. Its content is only in the API, which audits every view."""
    for item in _items(settings_module.load()).values():
        if verdict_id in (item.verdict_id, item.current):
            say_json(_without_content(item))
            return
    raise Misconfigured(f"there is no review item {verdict_id}")


@app.command("reconcile")
def review_reconcile(
    since: Annotated[str | None, typer.Option(help=f"Only verdicts written at this time or later. {A_DATE}")] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Put back what is missing.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object for each item that lacks something.")
    ] = False,
) -> None:
    """Check that each verdict of review has its item, and each decided item its superseding verdict.

    Exit code 3 if something is missing. Verdicts of the last 10 seconds are left out. The worker may run meanwhile.
    """
    settings = settings_module.load()
    since_s = seconds_of("--since", since)
    since_ms = None if since_s is None else int(since_s * 1000)
    from workers.review.reconcile import compare
    from workers.review.reconcile import repair as put_back

    items = _items(settings)
    found = compare(settings, items, since_ms)
    for what, ids in (("no item", found.without_item), ("no superseding verdict", found.without_verdict)):
        _print(what, ids, as_json=as_json)
    if not as_json:
        say(f"{counted(found.to_review, 'verdict')} of review: {len(found.without_item)} without an item")
        say(f"{counted(found.decided, 'decided item')}: {len(found.without_verdict)} without a superseding verdict")
    if not found.without_item and not found.without_verdict:
        return
    if repair:
        lost = put_back(settings, items, found, since_ms)
        for verdict_id in lost:
            say(f"{verdict_id}: topics.review has no such item: send the event again", err=True)
        if not lost:
            say("The commands that put them back were written: the review worker applies them.", err=True)
            return
    sys.exit(MISSING_CODE)


def _print(what: str, ids: Sequence[str], *, as_json: bool) -> None:
    for verdict_id in ids if as_json else ids[:MAX_SHOWN]:
        if as_json:
            say_json(orjson.dumps({"verdict_id": verdict_id, "missing": what}))
        else:
            say(f"{verdict_id}: {what}")
    if not as_json and len(ids) > MAX_SHOWN:
        say(f"and {len(ids) - MAX_SHOWN} more: --json prints all")


def _items(settings: Settings) -> dict[str, Item]:
    from workers.review.rebuilding import rebuilt

    return {item.verdict_id: item for item in rebuilt(settings)}


def _without_content(item: Item) -> bytes:
    from msgspec.structs import replace

    from workers.review.item import NO_CONTENT, encoded

    return encoded(replace(item, content=NO_CONTENT))
