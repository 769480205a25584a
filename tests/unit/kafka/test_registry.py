"""Outputs that are marked with their schemas, read by the client's own deserializer; and frames around events."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient, dual_schema_id_deserializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from msgspec.structs import replace

from tests.unit.schemas.test_older_versions import fixtures_of
from workers.core.decode import decode
from workers.core.frames import by_header, by_prefix, split
from workers.core.marks import marks_of
from workers.core.records import Finished, Output, Source, TopicPartition
from workers.core.shrink import shrunk
from workers.errors import Misconfigured, Unavailable, Undecodable
from workers.kafka import registry
from workers.settings import Events, Settings, load

GUID = "0af76519-16cd-43dd-8448-eb211c80319c"
EVENT = {"event_id": "1", "tenant_id": "t", "surface": "chat", "text": "hello"}
FRAMES = {"an id": b"\0\0\0\0\7", "a GUID": b"\1" + bytes(range(16))}


def settings_with(**changes: Any) -> Settings:
    sections = {"registry": {"url": "http://registry.example", "timeout_s": 5, **changes}}
    return Settings(**sections)  # type: ignore[arg-type]  # a section as a dict


@pytest.fixture(name="client")
def _client() -> SchemaRegistryClient:
    return SchemaRegistryClient.new_client({"url": "mock://test"})


@pytest.mark.parametrize("framing", ["header", "prefix"])
@pytest.mark.parametrize("contract", ["verdict", "review", "usage"])
def test_the_clients_deserializer_reads_what_a_worker_writes(
    client: SchemaRegistryClient, framing: str, contract: str
) -> None:
    settings = settings_with(framing=framing)
    marks = marks_of(settings, registry.frames(settings, client))
    assert marks is not None
    topic = {one.contract: one.topic for one in registry.subjects(settings)}[contract]
    value = fixtures_of(contract)[-1].read_bytes()
    written = marks.put(Output(topic, b"k", value), "ab12", b"")
    assert (written.value == value) == (framing == "header")
    assert (written.headers is None) == (framing == "prefix"), "records without headers are produced in batches"

    deserializer = JSONDeserializer(
        None, schema_registry_client=client, conf={"schema.id.deserializer": dual_schema_id_deserializer}
    )
    context = SerializationContext(topic, MessageField.VALUE, headers=[*(written.headers or [])])
    assert deserializer(written.value, context) == json.loads(value)
    # The deserializer validates: with a record of another shape it fails.
    with pytest.raises(Exception, match="required property"):
        deserializer(split(written.value or b"")[0] + b"{}", context)


def test_the_subjects_are_those_of_the_topics_and_a_second_worker_gets_the_same_ids(
    client: SchemaRegistryClient,
) -> None:
    first = registry.frames(settings_with(), client)
    assert sorted(client.get_subjects()) == [
        "moderation.review-value",
        "moderation.usage-value",
        "moderation.verdicts-value",
    ]
    assert registry.frames(settings_with(), client) == first
    assert len(set(first.values())) == 3
    assert client.get_latest_version("moderation.review-value").version == 1


def test_a_registry_that_gives_no_guid_is_named(client: SchemaRegistryClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apicurio 3.3 gives none."""
    full = client.register_schema_full_response

    def without_guid(*arguments: Any) -> Any:
        found = full(*arguments)
        return type(found)(
            schema_id=found.schema_id, guid=None, subject=found.subject, version=found.version, schema=found.schema
        )

    monkeypatch.setattr(client, "register_schema_full_response", without_guid)
    with pytest.raises(Misconfigured, match=r"^registry\.framing: .* gives schemas no GUID, .* set it to apicurio if "):
        registry.frames(settings_with(), client)
    assert registry.frames(settings_with(framing="prefix"), client)
    frame = registry.frames(settings_with(framing="apicurio"), client)["moderation.verdicts"]
    found = client.get_latest_version("moderation.verdicts-value")
    assert (frame.prefix, dict(frame.headers)) == (
        b"",
        {"apicurio.value.contentId": (found.schema_id or 0).to_bytes(8, "big")},
    )


@contextmanager
def answering(status: int, body: bytes = b'{"error_code": 1, "message": "because"}') -> Iterator[str]:
    """Serve this answer to every request."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "changes", "error", "said"),
    [
        (503, {}, Unavailable, "answers with status 503 (because)"),
        (429, {}, Unavailable, "answers with status 429"),
        (401, {"user": "u", "password": "pass-word"}, Misconfigured, "refuses registry.user and registry.password"),
        (409, {}, Misconfigured, "set the compatibility of this subject to FORWARD or NONE (because)"),
        (404, {"auto_register": False}, Misconfigured, "register it with `guardline schemas register` (because)"),
        (422, {}, Misconfigured, "refuses the schema of moderation.verdicts-value (status 422: because)"),
    ],
)
def test_an_answer_that_is_no_id_is_named(
    status: int, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    with answering(status) as url, pytest.raises(error, match=r"^registry") as caught:
        registry.frames(settings_with(url=url, **changes))
    assert said in str(caught.value)
    assert "pass-word" not in str(caught.value)


def test_a_registry_that_does_not_answer_is_waited_for() -> None:
    with answering(200) as url:
        pass
    with pytest.raises(Unavailable, match=r"^registry\.url: no answer from http://127\.0\.0\.1"):
        registry.frames(settings_with(url=url))


def test_a_client_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka.schema_registry", None)
    with pytest.raises(Misconfigured, match=r"^registry\.url: the client is not installed: `make extra NAME=registry`"):
        registry.frames(settings_with())


def test_nothing_is_registered_without_a_registry() -> None:
    assert registry.frames(Settings()) == {}
    assert marks_of(Settings(), {}) is None


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"URL": "http://u:pass-word@h"}, "registry.url: holds an `@`"),
        ({"URL": "ftp://h"}, "registry.url: has to begin with http:// or https://"),
        ({"URL": "http://h", "PASSWORD": "pass-word"}, "registry.password is set and registry.user is not"),
        ({"FRAMING": "trailer"}, "registry.framing: "),
    ],
)
def test_wrong_settings_are_refused(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"GUARDLINE_REGISTRY__{name}", value)
    with pytest.raises(Misconfigured) as caught:
        load()
    assert said in str(caught.value)
    assert "pass-word" not in str(caught.value)


def test_a_verdict_has_one_schema_id_and_a_content_type_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("__value_schema_id", "apicurio.value.globalId"):
        monkeypatch.setenv("GUARDLINE_EVENTS__CARRY_HEADERS", json.dumps([name]))
        with pytest.raises(Misconfigured, match=rf"^events\.carry_headers: {name} cannot be carried"):
            load()
    monkeypatch.delenv("GUARDLINE_EVENTS__CARRY_HEADERS")
    monkeypatch.setenv("GUARDLINE_CLOUDEVENTS__WRITE", "true")
    monkeypatch.setenv("GUARDLINE_REGISTRY__URL", "http://h")
    assert load().registry.framing == "header"
    monkeypatch.setenv("GUARDLINE_REGISTRY__FRAMING", "prefix")
    with pytest.raises(Misconfigured, match=r"^registry\.framing: prefix cannot be used with cloudevents\.write"):
        load()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_an_event_in_a_frame_is_read_as_one_without(frame: bytes, strict: bool) -> None:
    value = json.dumps(EVENT).encode()
    decoded = decode(frame + value, Events(strict=strict))
    assert decoded == decode(value, Events(strict=strict))
    assert decoded.ignored_fields == ()


@pytest.mark.parametrize("value", [b"\0", b"\0\0\0", b"\1", b"\0\0\0\0\7", b"\0\0\0\0\7\x02abc", b"\1" + b"x" * 16])
def test_a_frame_without_json_is_a_dead_letter_that_names_the_cause(value: bytes) -> None:
    with pytest.raises(Undecodable, match="not_json: the value begins as a Schema Registry frame of schema"):
        decode(value, Events())


def test_an_output_that_is_shortened_keeps_its_frame() -> None:
    document = {**json.loads(fixtures_of("review")[-1].read_bytes()), "text": "x" * 50_000}
    for frame in (by_prefix(7), by_header(GUID)):
        value = frame.prefix + json.dumps(document).encode()
        output = Output("review", b"k", value, [*frame.headers] or None)
        record = Finished(Source(TopicPartition("t", 0), 1, 2), (output,))
        smaller = shrunk(record, {"review": 20_000})
        assert smaller is not None
        (short,) = smaller.outputs
        prefix, content = split(short.value or b"")
        assert replace(short, value=None) == replace(output, value=None)
        assert (prefix, len(json.loads(content)["text"]) < 20_000) == (frame.prefix, True)
