"""`guardline policy`: its commands import what they need when they run."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.text import Text

from workers.cli.tables import print_table, table_of
from workers.errors import Misconfigured
from workers.settings import load

if TYPE_CHECKING:
    from schemas.policy import Policy

app = typer.Typer(no_args_is_help=True, help="The tenants' policies.")


@app.command("set")
def policy_set(
    tenant: str, file: Annotated[Path, typer.Argument(help="A policy in YAML or JSON; - for standard input.")]
) -> None:
    """Put a tenant's policy in force."""
    policy = read_policy(tenant, file)

    async def put(store: Any) -> int:
        return int(await store.put(tenant, policy))

    version = _with_store(put)
    typer.echo(f"policy for tenant {tenant!r}: version {version} is in force")


def read_policy(tenant: str, file: Path) -> Policy:
    """Give the policy in a file of YAML or JSON, or on standard input where its name is a dash.

    Raises:
        Misconfigured: it cannot be read, or is no policy.
    """
    from workers.policy.document import parse_yaml

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"policy for tenant {tenant!r}: cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Misconfigured(f"policy for tenant {tenant!r}: {file} is not UTF-8: {error}") from error
    return parse_yaml(tenant, text, "standard input" if str(file) == "-" else str(file))


@app.command("get")
def policy_get(tenant: str) -> None:
    """Print a tenant's policy."""

    async def get(store: Any) -> Any:
        return await store.get(tenant)

    policy = _with_store(get)
    if policy is None:
        raise _no_policy(tenant)
    # Only what was set: a default that is written out would win over the preset once this is set again.
    typer.echo(
        yaml.safe_dump(policy.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True),
        nl=False,
    )


@app.command("delete")
def policy_delete(tenant: str) -> None:
    """Take a tenant's policy out of force: the strict default decides for it."""

    async def delete(store: Any) -> int | None:
        version: int | None = await store.delete(tenant)
        return version

    version = _with_store(delete)
    if version is None:
        raise _no_policy(tenant)
    typer.echo(f"policy for tenant {tenant!r}: deleted by version {version}; the strict default decides for it")


@app.command("list")
def policy_list() -> None:
    """List the tenants that have a policy, and what it decides for Controversial, its preset included."""
    from workers.policy.document import InvalidPolicy, with_preset

    async def every(store: Any) -> Any:
        return await store.list()

    policies = _with_store(every)
    if not policies:
        typer.echo("no tenant has a policy: the strict default decides for all", err=True)
        return
    table = table_of("tenant", "version", "preset", "controversial")
    for tenant, policy in sorted(policies.items()):
        if isinstance(policy, InvalidPolicy):
            typer.echo(policy, err=True)
            continue
        table.add_row(Text(tenant), str(policy.version), policy.preset or "", with_preset(policy).controversial)
    print_table(table)


def _with_store(use: Any) -> Any:
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    from workers.redis.client import failure
    from workers.redis.policy_store import PolicyStore

    settings = load()

    async def run() -> Any:
        redis = Redis.from_url(settings.redis.url.get_secret_value(), socket_connect_timeout=5)
        try:
            return await use(PolicyStore(redis, settings.redis.namespace))
        except (RedisError, OSError) as error:
            raise failure(error) from error
        finally:
            await redis.aclose()

    return asyncio.run(run())


def _no_policy(tenant: str) -> Misconfigured:
    return Misconfigured(f"tenant {tenant!r} has no policy: the strict default decides for it")
