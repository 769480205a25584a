"""`guardline policy`. The commands import their modules when they run."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workers.cli.tables import add_row, print_table, say, say_yaml, table_of
from workers.cli.with_redis import with_redis
from workers.errors import Misconfigured
from workers.settings import load

if TYPE_CHECKING:
    from schemas.policy import Policy
    from workers.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The tenants' policies.")


@app.command("set")
def policy_set(
    tenant: str, file: Annotated[Path, typer.Argument(help="A policy in YAML or JSON; - for standard input.")]
) -> None:
    """Put a tenant's policy in force."""
    _set(_named(tenant), file)


@app.command("default")
def policy_default(
    file: Annotated[Path | None, typer.Argument(help="A policy in YAML or JSON; - for standard input.")] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Delete it: the strict default decides.")] = False,
) -> None:
    """Put in force what tenants without a policy get. Without FILE, print it."""
    from workers.policy.document import DEFAULT

    if file is not None and delete:
        raise Misconfigured("policy default: name a FILE, or say --delete, and not both")
    if file is not None:
        _set(DEFAULT, file)
    elif delete:
        _delete(DEFAULT)
    else:
        _print(DEFAULT)


def _set(tenant: str, file: Path) -> None:
    from workers.policy.document import subject

    policy = read_policy(tenant, file)

    async def put(store: Any) -> int:
        return int(await store.put(tenant, policy))

    version = _with_store(put)
    say(f"{subject(tenant)}: version {version} is in force")


def read_policy(tenant: str, file: Path) -> Policy:
    """Return the policy in a file of YAML or JSON, or on standard input where its name is a dash.

    Raises:
        Misconfigured: the file cannot be read, or is not a policy.
    """
    from workers.policy.document import parse_yaml, subject

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"{subject(tenant)}: cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Misconfigured(f"{subject(tenant)}: {file} is not UTF-8: {error}") from error
    return parse_yaml(tenant, text, "standard input" if str(file) == "-" else str(file))


def policy_in_force(settings: Settings, tenant: str) -> Policy:
    """Return the tenant's policy, or the default one.

    Raises:
        Misconfigured: neither is stored.
    """
    from workers.policy.document import DEFAULT
    from workers.redis.policy_store import PolicyStore

    async def find(redis: Any) -> Policy | None:
        store = PolicyStore(redis, settings.redis.namespace)
        return await store.get(tenant) or await store.get(DEFAULT)

    found: Policy | None = with_redis(settings.redis, find)
    if found is None:
        raise Misconfigured(f"tenant {tenant!r} has no policy, and no default policy is set: name a file with --policy")
    return found


@app.command("get")
def policy_get(tenant: str) -> None:
    """Print a tenant's policy."""
    _print(_named(tenant))


def _print(tenant: str) -> None:
    async def get(store: Any) -> Any:
        return await store.get(tenant)

    policy = _with_store(get)
    if policy is None:
        raise _no_policy(tenant)
    # Only what was set: a default that is written out would win over the preset once this is set again.
    say_yaml(policy.model_dump(mode="json", exclude_unset=True))


@app.command("delete")
def policy_delete(tenant: str) -> None:
    """Delete a tenant's policy. Then the default decides for the tenant."""
    _delete(_named(tenant))


def _delete(tenant: str) -> None:
    from workers.policy.document import subject

    async def delete(store: Any) -> int | None:
        version: int | None = await store.delete(tenant)
        return version

    version = _with_store(delete)
    if version is None:
        raise _no_policy(tenant)
    say(f"{subject(tenant)}: deleted by version {version}; {_decides(tenant)}")


@app.command("list")
def policy_list(
    only_names: Annotated[bool, typer.Option("--names", help="Print only the tenants, one a line.")] = False,
) -> None:
    """List the tenants with a policy, and the policy's decision for Controversial, with its preset."""
    from workers.policy.document import DEFAULT, InvalidPolicy, with_preset

    async def every(store: Any) -> Any:
        return await store.list()

    policies = _with_store(every)
    if only_names:
        for tenant in sorted(policies):
            if tenant != DEFAULT:
                say(tenant)
        return
    if not policies:
        say("no tenant has a policy: the strict default decides for all", err=True)
        return
    table = table_of("tenant", "version", "preset", "controversial")
    for tenant, policy in sorted(policies.items()):
        if isinstance(policy, InvalidPolicy):
            say(str(policy), err=True)
            continue
        name = "(all tenants that have none)" if tenant == DEFAULT else tenant
        add_row(table, name, str(policy.version), policy.preset or "", with_preset(policy).controversial)
    print_table(table)


def _with_store(use: Callable[[Any], Awaitable[Any]]) -> Any:
    from workers.redis.policy_store import PolicyStore

    settings = load()
    return with_redis(settings.redis, lambda redis: use(PolicyStore(redis, settings.redis.namespace)))


def _named(tenant: str) -> str:
    if not tenant:
        raise Misconfigured(
            "a tenant's name is not empty; what tenants without a policy get is: guardline policy default"
        )
    return tenant


def _no_policy(tenant: str) -> Misconfigured:
    return Misconfigured(
        f"{f'tenant {tenant!r} has no policy' if tenant else 'no default policy is set'}: {_decides(tenant)}"
    )


def _decides(tenant: str) -> str:
    return "the default decides for it" if tenant else "the strict default decides for tenants that have none"
