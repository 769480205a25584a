"""Registers the schemas of verdicts and review items at a Schema Registry, once, when a worker starts.

It must never be called for a record: the ids are constant while a worker runs, so a registry that is down later does
not matter.
"""

from __future__ import annotations

from contextlib import nullcontext
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from workers.core.frames import Frame, by_header, by_prefix
from workers.errors import Misconfigured, Unavailable, to_install
from workers.settings import Registry, Settings

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import SchemaRegistryClient

REFUSED = (401, 403)
CONFLICT = 409
NOT_FOUND = 404
TOO_MANY = 429


def frames(settings: Settings, client: SchemaRegistryClient | None = None) -> dict[str, Frame]:
    """Give the frame of each topic whose schema is registered; none without `registry.url`.

    The subject is the name of the topic and `-value`, as the clients' serializers name it by default. Blocks for
    `registry.timeout_s` for each of two requests at most.

    Raises:
        Unavailable: the registry does not answer.
        Misconfigured: it refuses, or the extra is not installed.
    """
    registry, topics = settings.registry, settings.topics
    if not registry.url:
        return {}
    with nullcontext(client) if client is not None else _client(registry) as asked:
        return {
            topic: _frame(asked, registry, f"{topic}-value", contract)
            for topic, contract in ((topics.verdicts, "verdict"), (topics.review, "review"))
        }


def _client(registry: Registry) -> SchemaRegistryClient:
    try:
        from confluent_kafka.schema_registry import SchemaRegistryClient
    except ImportError:
        raise Misconfigured(f"registry.url: the client is not installed: {to_install('registry')}") from None
    # The start of the worker repeats the request, so that its log says why it waits.
    properties: dict[str, Any] = {"url": registry.url, "timeout": registry.timeout_s, "max.retries": 0}
    if registry.user:
        properties["basic.auth.user.info"] = f"{registry.user}:{registry.password.get_secret_value()}"
    if registry.ca_file is not None:
        properties["ssl.ca.location"] = str(registry.ca_file)
    return SchemaRegistryClient(properties)


def _frame(client: SchemaRegistryClient, registry: Registry, subject: str, contract: str) -> Frame:
    from confluent_kafka.schema_registry import Schema
    from confluent_kafka.schema_registry.common._httpx_compat import httpx
    from confluent_kafka.schema_registry.error import SchemaRegistryError

    schema = Schema((files("schemas") / "json" / f"{contract}.schema.json").read_text(encoding="utf-8"), "JSON")
    ask = client.register_schema_full_response if registry.auto_register else client.lookup_schema
    try:
        found = ask(subject, schema)
    except SchemaRegistryError as error:
        raise _failure(registry, subject, contract, error.http_status_code, error.error_message) from error
    except httpx.HTTPError as error:
        raise Unavailable(f"registry.url: no answer from {registry.url} ({error or type(error).__name__})") from error
    if registry.framing == "prefix" and found.schema_id is not None:
        return by_prefix(found.schema_id)
    if registry.framing == "header" and found.guid is not None:
        return by_header(found.guid)
    lacks, other = ("GUID", "prefix") if registry.framing == "header" else ("id", "header")
    raise Misconfigured(
        f"registry.framing: {registry.url} gives schemas no {lacks}, which the framing `{registry.framing}` needs: set "
        f"it to {other}"
    )


def _failure(
    registry: Registry, subject: str, contract: str, status: int, said: str | None
) -> Unavailable | Misconfigured:
    if status >= 500 or status == TOO_MANY:
        return Unavailable(f"registry.url: {registry.url} answers with status {status} ({said})")
    if status in REFUSED:
        return Misconfigured(f"registry: {registry.url} refuses registry.user and registry.password (status {status})")
    if status == CONFLICT:
        return Misconfigured(
            f"registry: the schema of {subject} is not compatible with the one that is registered; set the "
            f"compatibility of this subject to FORWARD or NONE ({said})"
        )
    if status == NOT_FOUND and not registry.auto_register:
        return Misconfigured(
            f"registry.auto_register is false, and the subject {subject} does not have the schema of this version: "
            f"register schemas/json/{contract}.schema.json ({said})"
        )
    return Misconfigured(f"registry.url: {registry.url} refuses the schema of {subject} (status {status}: {said})")
