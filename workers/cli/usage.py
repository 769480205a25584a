"""`guardline usage`: what each tenant used."""

from __future__ import annotations

from typing import Annotated

import orjson
import typer

from workers import settings as settings_module
from workers.cli.tables import add_row, print_table, say, say_json, table_of
from workers.cli.times import A_DATE, window_of
from workers.core.usage import Period, Usages
from workers.errors import Misconfigured

app = typer.Typer()


@app.command("usage")
def usage_command(
    tenant: Annotated[list[str] | None, typer.Option(help="Only this tenant; may be repeated.")] = None,
    since: Annotated[str | None, typer.Option(help=f"Only minutes that begin at this time or later. {A_DATE}")] = None,
    until: Annotated[str | None, typer.Option(help=f"Only minutes that begin before this time. {A_DATE}")] = None,
    by: Annotated[Period | None, typer.Option(help="A row for each period, in UTC, instead of one in all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print what each tenant used: events, cache hits, tokens and engine time."""
    since_s, until_s = window_of(since, until)
    usages = Usages(tenants=tenant or (), since=since_s, until=until_s, by=by)
    from workers.kafka.reader import read

    settings = settings_module.load()
    topic = settings.topics.usage
    if not topic:
        raise Misconfigured("topics.usage: it is empty, so workers write no usage: name a topic")
    since_ms = None if since_s is None else int(since_s * 1000)
    for message in read(settings.kafka, [topic], from_beginning=True, follow=False, since_ms=since_ms):
        if message is not None:
            try:
                usages.add(message.value() or b"")
            except (ValueError, LookupError, TypeError):
                place = f"{message.topic()}/{message.partition()}/{message.offset()}"
                say(f"{place} is not a record of usage: another program writes to topics.usage", err=True)
    rows = sorted(usages.sums.items())
    if as_json:
        for (period, name), total in rows:
            begin = {by: period} if by else {}
            counts = {"events": total.events, "cache_hits": total.cache_hits, "tokens": total.tokens}
            say_json(orjson.dumps({**begin, "tenant_id": name, **counts, "engine_ms": round(total.engine_ms, 3)}))
        return
    table = table_of(*([by] if by else []), "tenant", "events", "cache hits", "tokens", "engine seconds")
    for (period, name), total in rows:
        counted = (total.events, total.cache_hits, total.tokens)
        add_row(table, *([period] if by else []), name, *map(str, counted), f"{total.engine_ms / 1000:.3f}")
    print_table(table)
