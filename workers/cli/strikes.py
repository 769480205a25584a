"""`guardline strikes`. The commands import their modules when they run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from workers import settings as settings_module
from workers.cli.policy import policy_in_force, read_policy
from workers.cli.tables import add_row, counted, print_table, say, say_json, table_of
from workers.cli.times import A_DATE, seconds_of
from workers.cli.with_redis import has_policy, with_redis
from workers.errors import Misconfigured, to_install

if TYPE_CHECKING:
    from workers.redis.client import Client
    from workers.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Authors' strikes.")

TENANT = Annotated[str, typer.Option(help="The tenant.")]
KINDS = {".svg", ".png"}


@app.command("simulate")
def simulate_command(
    tenant: TENANT,
    policy: Annotated[
        Path | None, typer.Option(help="A policy with the field `strikes`; by default the one in force.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help=f"Only verdicts that were written at this time or later. {A_DATE}")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write a plot into this file (.svg or .png).")] = None,
    top: Annotated[int, typer.Option(min=0, help="Name so many authors with the most strikes, by pseudonym.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Count past verdicts by a policy's strikes: how many authors would have reached each threshold."""
    from workers.evaluation.strikes import Simulation
    from workers.policy.document import subject
    from workers.policy.policy import CompiledPolicy

    since_s = seconds_of("--since", since)
    draw = None if plot is None else _plotting(plot)
    settings = settings_module.load()
    found = read_policy(tenant, policy) if policy is not None else policy_in_force(settings, tenant)
    compiled = CompiledPolicy(found)
    if compiled.strikes is None:
        raise Misconfigured(f"{subject(tenant)}: it has no field 'strikes', so there is nothing to count")
    simulation = Simulation(tenant, compiled, compiled.strikes, secret=settings.pseudonym_secret)
    _read(settings, simulation, since_s)
    report = simulation.report(top=top)
    if draw is not None and plot is not None:
        plot.write_bytes(draw(report, plot.suffix.lower().removeprefix(".")))
        say(f"{plot}: written", err=True)
    if as_json:
        say_json(orjson.dumps(report))
    else:
        _print(report)


def _plotting(file: Path) -> Callable[[dict[str, Any], str], bytes]:
    if file.suffix.lower() not in KINDS:
        raise Misconfigured(f"--plot: {file} has to end in {' or '.join(sorted(KINDS))}")
    if not file.parent.is_dir():
        raise Misconfigured(f"--plot: cannot write {file}: there is no folder {file.parent}")
    try:
        from workers.evaluation.plots import strikes_plot
    except ModuleNotFoundError:
        raise Misconfigured(f"--plot needs matplotlib: {to_install('eval')}") from None
    return strikes_plot


def _read(settings: Settings, simulation: Any, since_s: float | None) -> None:
    from workers.core.frames import split
    from workers.kafka.reader import read

    since_ms = None if since_s is None else int(since_s * 1000)
    for message in read(
        settings.kafka, [settings.topics.verdicts], from_beginning=True, follow=False, since_ms=since_ms
    ):
        # The reader begins a little earlier.
        if message is None or (since_ms is not None and message.timestamp()[1] < since_ms):
            continue
        try:
            simulation.add(orjson.loads(split(message.value() or b"")[1]))
        except (ValueError, LookupError, TypeError, AttributeError):
            place = f"{message.topic()}/{message.partition()}/{message.offset()}"
            say(f"{place} is not a verdict: another program writes to topics.verdicts", err=True)


def _print(report: dict[str, Any]) -> None:
    authors = report["authors"]
    say(
        f"{counted(report['verdicts'], 'verdict')} of {counted(authors, 'author')}; "
        f"strikes for {counted(report['verdicts_with_strikes'], 'verdict')} of "
        f"{counted(report['authors_with_strikes'], 'author')}"
    )
    if report["percentiles"]:
        parts = ", ".join(f"{part} % at most {value:g}" for part, value in report["percentiles"].items())
        say(f"strikes of the authors who had any: {parts}; the most {report['most']:g}")
    table = table_of("threshold", "at", "authors", "of all", "signals", "in force at the end")
    for line in report["thresholds"]:
        share = f"{line['authors'] / authors:.3%}" if authors else ""
        cells = (f"{line['at']:g}", str(line["authors"]), share, str(line["raised"]), str(line["in_force"]))
        add_row(table, line["name"], *cells)
    if report["thresholds"]:
        print_table(table)
    for line in report["decisions_changed"]:
        say(
            f"{line['with_strikes']} instead of {line['without_strikes']} because of the strikes: "
            f"{counted(line['verdicts'], 'verdict')}"
        )
    for author in report["top"]:
        say(f"{author['strikes']:g}  {author['pseudonym']}")


@app.command("show")
def show_command(
    tenant: TENANT,
    author: Annotated[str, typer.Option(help="The author's id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print an author's strikes, as workers read them in Redis now."""
    import time

    from workers.policy.strikes import NO_STRIKES
    from workers.redis.strikes import Author, StoredStrikes

    settings = settings_module.load()
    namespace = settings.redis.namespace

    async def find(redis: Client) -> Any:
        stored = StoredStrikes(redis, namespace=namespace, secret=settings.pseudonym_secret)
        (standing,) = await stored.read([Author(tenant, author)])
        return standing, standing != NO_STRIKES or await has_policy(redis, namespace, tenant)

    standing, is_known = with_redis(settings.redis, find)
    if not is_known:
        say(f"nothing of tenant {tenant!r} is known in Redis: it has no policy, and this author no strikes", err=True)
    if standing is None:
        raise Misconfigured(
            f"redis.namespace: the strikes of this author in {namespace!r} are not readable: another "
            "program writes there, or another version of Guardline"
        )
    now_ms = int(time.time() * 1000)
    strikes = standing.value(now_ms)
    if as_json:
        say_json(orjson.dumps({"tenant_id": tenant, "author_id": author, "strikes": strikes}))
    else:
        say(f"{strikes:g}")
