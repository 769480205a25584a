"""`guardline schemas`, against the client's own registry in memory. `tests/registry` runs it against Apicurio."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from typer.testing import CliRunner, Result

from workers.cli.app import app
from workers.errors import Misconfigured
from workers.kafka import registry

ALL = ("moderation.verdicts-value", "moderation.review-value", "moderation.usage-value")


@pytest.fixture(name="client")
def _client(monkeypatch: pytest.MonkeyPatch) -> SchemaRegistryClient:
    client = SchemaRegistryClient.new_client({"url": "mock://schemas"})
    monkeypatch.setattr(registry, "_client", lambda _: client)
    monkeypatch.setenv("GUARDLINE_REGISTRY__URL", "http://registry.example")
    return client


def run(command: str) -> Result:
    return CliRunner().invoke(app, ["schemas", command])


def test_the_schemas_are_registered_once(client: SchemaRegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDLINE_REGISTRY__AUTO_REGISTER", "false")
    missing = run("check")
    assert isinstance(missing.exception, Misconfigured)
    assert f"{', '.join(ALL)} do not have the schemas of this version" in str(missing.exception)
    assert client.get_subjects() == [], "check changes nothing"

    first, second = run("register").stdout.splitlines(), run("register").stdout.splitlines()
    assert [line.partition(", id")[0] for line in first] == [f"registered: {name}" for name in ALL]
    assert second == [f"already {line}" for line in first]
    checked = run("check")
    assert (checked.exit_code, checked.stdout.count("version 1, id")) == (0, 3)


def test_subjects_that_are_empty_are_no_failure_if_the_worker_may_register(client: SchemaRegistryClient) -> None:
    checked = run("check")
    assert (checked.exit_code, checked.stdout.count("not registered")) == (0, 3)


@pytest.mark.parametrize(("level", "is_refused"), [("BACKWARD", True), ("NONE", False)])
def test_a_schema_that_the_registry_would_refuse_is_named(
    client: SchemaRegistryClient, monkeypatch: pytest.MonkeyPatch, level: str, is_refused: bool
) -> None:
    client.register_schema(ALL[1], Schema('{"type": "object"}', "JSON"))
    tested: list[str] = []

    def compare(subject: str, *_: Any) -> bool:
        tested.append(subject)
        return False

    monkeypatch.setattr(client, "test_compatibility", compare)
    monkeypatch.setattr(client, "get_compatibility", lambda _: level)
    checked = run("check")
    assert tested == [ALL[1]]
    assert ("not registered, and not compatible" in checked.stdout) == is_refused
    if is_refused:
        assert isinstance(checked.exception, Misconfigured)
        assert f"the schemas of {ALL[1]} are not compatible" in str(checked.exception)
    else:
        assert checked.exit_code == 0


@pytest.mark.parametrize("command", ["register", "check"])
def test_without_a_registry_the_setting_is_named(command: str) -> None:
    failed = run(command)
    assert isinstance(failed.exception, Misconfigured)
    assert str(failed.exception).startswith("registry.url: it is empty")
