"""A worker between Kafka and a real Schema Registry, with the framing that Apicurio supports."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from tests.registry import apicurio
from tests.site import Site
from workers.errors import Misconfigured
from workers.kafka import registry
from workers.kafka.intake import headers_of
from workers.kafka.reader import read
from workers.settings import Settings

EVENT = {"event_id": "1", "tenant_id": "acme", "surface": "chat", "text": "good morning everyone"}
pytestmark = pytest.mark.registry

SCHEMAS = Path(__file__).parents[2] / "schemas" / "json"


@pytest.fixture(scope="module", name="url")
def _url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with apicurio.running(tmp_path_factory.mktemp("apicurio")) as url:
        yield url


@pytest.fixture(name="client")
def _client(url: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": url, "timeout": 10}) as client:
        yield client


def settings_with(url: str, topic: str, **changes: Any) -> Settings:
    sections = {"registry": {"url": url, **changes}, "topics": {"verdicts": f"{topic}-v", "review": f"{topic}-r"}}
    return Settings(**sections)  # type: ignore[arg-type]  # sections as dicts


def test_events_and_verdicts_with_a_prefix_are_those_of_the_clients_serializers(
    site: Site, url: str, client: SchemaRegistryClient
) -> None:
    site.create_topics()
    settings = site.settings(GUARDLINE_REGISTRY__URL=url, GUARDLINE_REGISTRY__FRAMING="prefix")
    topic = settings.topics.inputs[0]
    serializer = JSONSerializer((SCHEMAS / "event.schema.json").read_text(), client)
    framed = serializer(EVENT, SerializationContext(topic, MessageField.VALUE))
    assert framed is not None
    assert framed[:1] == b"\0"
    site.worker(GUARDLINE_REGISTRY__URL=url, GUARDLINE_REGISTRY__FRAMING="prefix")
    site.produce([(b"k", framed), (b"k", json.dumps({**EVENT, "event_id": "2"}).encode())])

    records: list[bytes] = []
    while len(records) < 2:
        found = read(settings.kafka, [settings.topics.verdicts], from_beginning=True, follow=False)
        records = [message.value() or b"" for message in found if message is not None]
    subject = f"{settings.topics.verdicts}-value"
    assert client.get_latest_version(subject).schema_id == int.from_bytes(records[0][1:5])
    deserializer = JSONDeserializer(None, schema_registry_client=client)
    context = SerializationContext(settings.topics.verdicts, MessageField.VALUE)
    verdicts = [deserializer(record, context) for record in records]
    assert [(verdict["event_id"], verdict["ignored_fields"]) for verdict in verdicts if verdict] == [
        ("1", []),
        ("2", []),
    ]
    shown = site.command("verdicts", "--json", GUARDLINE_REGISTRY__URL=url).stdout
    assert [json.loads(line)["event_id"] for line in shown.splitlines()] == ["1", "2"]


def test_apicurios_own_header_names_the_schema_of_a_cloud_event(site: Site, url: str) -> None:
    site.create_topics()
    site.environment |= {
        "GUARDLINE_REGISTRY__URL": url,
        "GUARDLINE_REGISTRY__FRAMING": "apicurio",
        "GUARDLINE_REGISTRY__AUTO_REGISTER": "false",
        "GUARDLINE_CLOUDEVENTS__WRITE": "true",
    }
    topics = site.settings().topics
    assert "not have the schemas of this version" in site.command("schemas", "check", code=2).stderr
    assert site.command("schemas", "register").stdout.count("registered: ") == 3
    site.command("schemas", "check")
    site.worker()
    site.produce([(b"k", json.dumps(EVENT).encode())])
    records: dict[str, Message] = {}
    while len(records) < 2:
        for message in read(site.settings().kafka, topics.outputs, from_beginning=True, follow=False):
            if message is not None:
                records[str(message.topic())] = message
    for topic, contract in ((topics.verdicts, "verdict"), (topics.usage, "usage")):
        headers = dict(headers_of(records[topic]))
        assert headers["ce_type"] == f"guardline.{contract}.v1".encode()
        assert json.loads(records[topic].value() or b"")["tenant_id"] == "acme"
        # Apicurio's deserializers ask for the schema at this address.
        content_id = int.from_bytes(headers["apicurio.value.contentId"] or b"")
        place = url.replace("ccompat/v7", f"registry/v3/ids/contentIds/{content_id}")
        with urllib.request.urlopen(place, timeout=10) as answer:
            assert json.loads(answer.read()) == json.loads((SCHEMAS / f"{contract}.schema.json").read_text())


def test_a_second_worker_gets_the_same_ids(url: str) -> None:
    settings = settings_with(url, "again", framing="prefix")
    assert registry.frames(settings) == registry.frames(settings)


def test_schemas_that_are_registered_by_others_are_found(url: str, client: SchemaRegistryClient) -> None:
    with pytest.raises(Misconfigured, match=r"^registry\.auto_register is false, and the subject named-v-value does"):
        registry.frames(settings_with(url, "named", framing="prefix", auto_register=False))
    registered = registry.frames(settings_with(url, "named", framing="prefix"))
    assert registry.frames(settings_with(url, "named", framing="prefix", auto_register=False)) == registered


def test_a_schema_that_readers_of_the_last_one_could_not_read_is_refused(
    url: str, client: SchemaRegistryClient
) -> None:
    # Apicurio compares schemas of one draft only, and none newer than draft-07.
    draft = json.loads((SCHEMAS / "verdict.schema.json").read_text())["$schema"]
    properties = {"verdict_id": {"type": "integer"}}
    other = {"$schema": draft, "type": "object", "properties": properties, "required": ["verdict_id"]}
    client.register_schema("strict-v-value", Schema(json.dumps(other), "JSON"))
    client.set_compatibility("strict-v-value", "FULL")
    with pytest.raises(Misconfigured, match=r"the schema of strict-v-value is not compatible .* FORWARD or NONE"):
        registry.frames(settings_with(url, "strict", framing="prefix"))
    found = {one.subject.topic: one for one in registry.check(settings_with(url, "strict"))}
    assert (found["strict-v"].newest, found["strict-v"].is_compatible) == (1, False)
    assert (found["strict-r"].newest, found["strict-r"].is_compatible) == (None, True)
    client.set_compatibility("strict-v-value", "NONE")
    (first, *_) = registry.check(settings_with(url, "strict"))
    assert first.is_compatible


def test_the_header_framing_needs_a_registry_that_gives_guids(url: str) -> None:
    with pytest.raises(Misconfigured, match=r"gives schemas no GUID, which the framing `header` needs"):
        registry.frames(settings_with(url, "guid"))
