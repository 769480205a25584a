"""Registers the schemas of the outputs at a Schema Registry: once, when a worker starts, or by `guardline schemas`.

It must never be called for a record: the ids are constant while a worker runs, so a registry that is down later does
not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from workers.core.frames import Frame, by_content_id, by_header, by_prefix
from workers.errors import Misconfigured, Unavailable, to_install
from workers.settings import Registry, Settings

if TYPE_CHECKING:
    from confluent_kafka.schema_registry import RegisteredSchema, Schema, SchemaRegistryClient

REFUSED = (401, 403)
CONFLICT = 409
NOT_FOUND = 404
TOO_MANY = 429


class Subject(NamedTuple):
    """The schema of a topic's values: its subject is the name of the topic and `-value`, as serializers name it."""

    topic: str
    contract: str

    @property
    def name(self) -> str:
        """The name of the subject."""
        return f"{self.topic}-value"


class Registered(NamedTuple):
    """A subject with the id and the version of the schema that this version of Guardline writes.

    Both are None if the registry does not have that schema. `newest` is the newest version of the subject there, None
    if it has none; `is_compatible` says whether the registry would take the schema.
    """

    subject: Subject
    id: int | None
    version: int | None
    newest: int | None = None
    is_compatible: bool = True


def subjects(settings: Settings) -> list[Subject]:
    """Give the subjects of the topics whose records have schema ids."""
    topics = settings.topics
    found = [Subject(topics.verdicts, "verdict"), Subject(topics.review, "review")]
    return [*found, Subject(topics.usage, "usage")] if topics.usage else found


def frames(settings: Settings, client: SchemaRegistryClient | None = None) -> dict[str, Frame]:
    """Give the frame of each topic whose schema is registered; none without `registry.url`.

    Blocks for `registry.timeout_s` for each of three requests at most.

    Raises:
        Unavailable: the registry does not answer.
        Misconfigured: it refuses, or the extra is not installed.
    """
    registry = settings.registry
    if not registry.url:
        return {}
    with _connected(registry, client) as asked:
        ask = asked.register_schema_full_response if registry.auto_register else asked.lookup_schema
        found: dict[str, Frame] = {}
        for subject in subjects(settings):
            with _failures(registry, subject):
                found[subject.topic] = _frame(registry, ask(subject.name, _schema(subject)))
        return found


def register(settings: Settings, client: SchemaRegistryClient | None = None) -> Iterator[tuple[Registered, bool]]:
    """Register the schemas, whatever `registry.auto_register` says; give each, and whether it was there already.

    Raises: as `frames`.
    """
    registry = _required(settings)
    with _connected(registry, client) as asked:
        for subject in subjects(settings):
            with _failures(registry, subject):
                before = _looked_up(asked, subject)
                now = before or asked.register_schema_full_response(subject.name, _schema(subject))
            yield Registered(subject, now.schema_id, now.version), before is not None


def check(settings: Settings, client: SchemaRegistryClient | None = None) -> Iterator[Registered]:
    """Compare the registry with the schemas of this version. Changes nothing.

    Raises: as `frames`.
    """
    registry = _required(settings)
    with _connected(registry, client) as asked:
        for subject in subjects(settings):
            with _failures(registry, subject):
                found = _looked_up(asked, subject)
                newest = max(_versions(asked, subject), default=None)
                if found is not None:
                    yield Registered(subject, found.schema_id, found.version, newest)
                else:
                    yield Registered(subject, None, None, newest, newest is None or _is_compatible(asked, subject))


def _required(settings: Settings) -> Registry:
    if not settings.registry.url:
        raise Misconfigured("registry.url: it is empty, so outputs have no schema id: set it to that of a registry")
    return settings.registry


@contextmanager
def _connected(registry: Registry, client: SchemaRegistryClient | None) -> Iterator[SchemaRegistryClient]:
    with nullcontext(client) if client is not None else _client(registry) as asked:
        yield asked


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


def _schema(subject: Subject) -> Schema:
    from confluent_kafka.schema_registry import Schema

    file = files("schemas") / "json" / f"{subject.contract}.schema.json"
    return Schema(file.read_text(encoding="utf-8"), "JSON")


def _looked_up(client: SchemaRegistryClient, subject: Subject) -> RegisteredSchema | None:
    """Give the schema of this version as the subject has it; None if it does not."""
    from confluent_kafka.schema_registry.error import SchemaRegistryError

    try:
        return client.lookup_schema(subject.name, _schema(subject))
    except SchemaRegistryError as error:
        if error.http_status_code != NOT_FOUND:
            raise
        return None


def _versions(client: SchemaRegistryClient, subject: Subject) -> list[int]:
    from confluent_kafka.schema_registry.error import SchemaRegistryError

    try:
        return client.get_versions(subject.name)
    except SchemaRegistryError as error:
        if error.http_status_code != NOT_FOUND:
            raise
        return []


def _is_compatible(client: SchemaRegistryClient, subject: Subject) -> bool:
    """Say whether the registry would take the schema as the subject's next version."""
    from confluent_kafka.schema_registry.error import SchemaRegistryError

    if client.test_compatibility(subject.name, _schema(subject)):
        return True
    try:
        # Apicurio compares the schemas also where the level says that it takes any.
        return client.get_compatibility(subject.name) == "NONE"
    except SchemaRegistryError as error:
        if error.http_status_code != NOT_FOUND:
            raise
        return False  # The subject has the level of the registry, by which the registry has compared.


def _frame(registry: Registry, found: RegisteredSchema) -> Frame:
    """Give the frame of a registered schema.

    Raises:
        Misconfigured: the registry gives no such id.
    """
    if registry.framing == "header":
        if found.guid is not None:
            return by_header(found.guid)
        raise Misconfigured(
            f"registry.framing: {registry.url} gives schemas no GUID, which the framing `header` needs: set it to "
            "apicurio if the registry is Apicurio, otherwise to prefix"
        )
    if found.schema_id is None:
        raise Misconfigured(
            f"registry.framing: {registry.url} gives schemas no id, which the framing `{registry.framing}` needs: set "
            "it to header"
        )
    return by_prefix(found.schema_id) if registry.framing == "prefix" else by_content_id(found.schema_id)


@contextmanager
def _failures(registry: Registry, subject: Subject) -> Iterator[None]:
    """Raise what the client raises in the block as an error of this project."""
    from confluent_kafka.schema_registry.common._httpx_compat import httpx
    from confluent_kafka.schema_registry.error import SchemaRegistryError

    try:
        yield
    except SchemaRegistryError as error:
        raise _failure(registry, subject, error.http_status_code, error.error_message) from error
    except httpx.HTTPError as error:
        raise Unavailable(f"registry.url: no answer from {registry.url} ({error or type(error).__name__})") from error


def _failure(registry: Registry, subject: Subject, status: int, said: str | None) -> Unavailable | Misconfigured:
    if status >= 500 or status == TOO_MANY:
        return Unavailable(f"registry.url: {registry.url} answers with status {status} ({said})")
    if status in REFUSED:
        return Misconfigured(f"registry: {registry.url} refuses registry.user and registry.password (status {status})")
    if status == CONFLICT:
        return Misconfigured(
            f"registry: the schema of {subject.name} is not compatible with the one that is registered; set the "
            f"compatibility of this subject to FORWARD or NONE ({said})"
        )
    if status == NOT_FOUND and not registry.auto_register:
        return Misconfigured(
            f"registry.auto_register is false, and the subject {subject.name} does not have the schema of this "
            f"version: register it with `guardline schemas register` ({said})"
        )
    return Misconfigured(f"registry.url: {registry.url} refuses the schema of {subject.name} (status {status}: {said})")
