"""Records that are CloudEvents become events, and outputs have the headers of CloudEvents."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from confluent_kafka import Message

from workers.core.dead_letters import REASON_HEADERS, read_letter
from workers.core.marks import marks_of, written_time
from workers.core.records import Finished, Headers, Output, Source, TopicPartition, Used
from workers.core.usage import outputs_of
from workers.errors import Misconfigured
from workers.kafka.decoding import Decoding
from workers.mapping.document import parse_yaml
from workers.mapping.mapping import Mapping
from workers.moderation.reading import EventReader
from workers.settings import Settings, load

POSITION = "chat/3/42"
DATA: dict[str, object] = {"tenant_id": "acme", "surface": "chat", "text": "hello"}
HEADERS: Headers = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"evt-1"),
    ("ce_type", b"com.acme.said"),
    ("ce_source", b"/rooms/7"),
    ("ce_time", b"2026-11-24T02:00:00Z"),
    ("content-type", b"application/json"),
]
ENVELOPE = {
    "specversion": "1.0",
    "id": "evt-1",
    "type": "com.acme.said",
    "source": "/rooms/7",
    "time": "2026-11-24T02:00:00Z",
}
STRUCTURED: Headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]


def decoded(
    value: object, headers: Headers, *, mapping: str = "", **settings: dict[str, Any]
) -> list[dict[str, Any]] | str:
    """Give the events of a record, or the reason for its dead letter."""
    read = Settings(**{"cloudevents": {"read": True}, **settings})  # type: ignore[arg-type]  # sections as dicts
    decoding = Decoding("dead", EventReader(read, Mapping(parse_yaml(mapping, "m.yaml")) if mapping else None))
    written = value if isinstance(value, bytes) else json.dumps(value).encode()
    message = Message(topic="chat", partition=3, offset=42, key=b"k", value=written, headers=[*headers])
    found = decoding(message, Source(TopicPartition("chat", 3), 1, 42))
    if isinstance(found, Finished):
        assert found.outputs[0].value == written
        return dict(found.outputs[0].headers or [])["reason"].decode()  # type: ignore[union-attr]  # never null
    return [dict(event.body) for event in found]


def one(*arguments: Any, **changes: Any) -> dict[str, Any]:
    found = decoded(*arguments, **changes)
    assert isinstance(found, list), found
    (event,) = found
    return event


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("value", "headers"),
    [
        (DATA, HEADERS),
        ({**ENVELOPE, "data": DATA}, STRUCTURED),
        ({**ENVELOPE, "data_base64": base64.b64encode(json.dumps(DATA).encode()).decode()}, STRUCTURED),
    ],
    ids=["binary mode", "structured mode", "structured mode, base64"],
)
def test_the_attributes_stand_in_for_what_the_event_lacks(value: object, headers: Headers, strict: bool) -> None:
    event = one(value, headers, events={"strict": strict})
    assert event == {
        **DATA,
        "event_id": "evt-1",
        "created_at": "2026-11-24T02:00:00Z",
        "attributes": {"ce_source": "/rooms/7"},
    }


@pytest.mark.parametrize("strict", [False, True])
def test_what_the_event_says_itself_counts(strict: bool) -> None:
    own = {
        **DATA,
        "surface": "comment",
        "event_id": "own",
        "created_at": "2020-01-01T00:00:00Z",
        "attributes": {"ce_source": "mine", "room": "1"},
    }
    assert one(own, HEADERS, events={"strict": strict}) == own


def test_without_the_setting_the_headers_are_not_read() -> None:
    event = one(DATA, HEADERS, cloudevents={"read": False})
    assert (event["event_id"], "created_at" in event, "attributes" in event) == (POSITION, False, False)


def test_a_record_without_these_headers_is_read_as_before() -> None:
    assert one(DATA, [("x", b"1")])["event_id"] == POSITION
    assert one({**ENVELOPE, **DATA}, [])["event_id"] == POSITION


@pytest.mark.parametrize(
    ("name", "value"), [("ce_id", b""), ("ce_id", b"x" * 300), ("ce_id", None), ("ce_time", b"soon"), ("ce_time", None)]
)
def test_an_attribute_that_cannot_be_used_stands_in_for_nothing(name: str, value: bytes | None) -> None:
    event = one(DATA, [(one_name, value if one_name == name else given) for one_name, given in HEADERS])
    assert event["event_id"] == (POSITION if name == "ce_id" else "evt-1")
    assert event.get("created_at") == (None if name == "ce_time" else "2026-11-24T02:00:00Z")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (DATA, "wrong_type"),
        (b"[1", "not_json"),
        ({**ENVELOPE, "data_base64": "?"}, "invalid_field"),
        ({**ENVELOPE, "data": "hello"}, "wrong_type"),
        (ENVELOPE, "wrong_type"),
        ({**ENVELOPE, "data": {"text": "hello"}}, "missing_field"),
    ],
)
def test_a_record_in_structured_mode_that_holds_no_event_is_a_dead_letter(value: object, reason: str) -> None:
    assert decoded(value, STRUCTURED) == reason


@pytest.mark.parametrize("strict", [{"strict": True}])
@pytest.mark.parametrize("value", [{"text": "hello"}, {**DATA, "role": "robot"}, b"[]", b"{"])
def test_an_id_in_the_headers_does_not_make_a_strict_worker_generous(value: object, strict: dict[str, Any]) -> None:
    assert decoded(value, HEADERS, events=strict) in ("missing_field", "invalid_field", "wrong_type", "not_json")


def test_a_mapping_gets_the_attributes_for_the_fields_that_it_does_not_find() -> None:
    texts = {"texts": {"title": "title", "body": "body"}}
    found = decoded(
        {"title": "a", "body": "b", "org": "acme"}, HEADERS, mapping=json.dumps({"tenant_id": "org", **texts})
    )
    assert isinstance(found, list)
    assert [event["event_id"] for event in found] == ["evt-1/title", "evt-1/body"]
    mapped = one({"text": "a", "n": 7}, HEADERS, mapping="{tenant_id: {value: t}, event_id: n, created_at: null}")
    assert (mapped["event_id"], mapped["created_at"]) == ("7", "2026-11-24T02:00:00Z")


def test_a_mapping_removes_the_envelope_itself() -> None:
    mapping = "{unwrap: cloudevents, event_id: {envelope: subject}}"
    assert one({**ENVELOPE, "subject": "s-1", "data": DATA}, STRUCTURED, mapping=mapping)["event_id"] == "s-1"


def test_the_headers_of_outputs_are_those_of_cloud_events() -> None:
    source = "https://acme.example/moderation"
    settings = Settings(cloudevents={"write": True, "source": source})
    marks = marks_of(settings, {})
    assert marks is not None
    time = written_time(1_764_000_000.25)
    carried: Headers = [("traceparent", b"t")]
    verdict = marks.put(Output(settings.topics.verdicts, b"k", b"{}", carried), "ab12", time)
    assert (verdict.key, verdict.value) == (b"k", b"{}")
    assert dict(verdict.headers or []) == {
        "traceparent": b"t",
        "ce_specversion": b"1.0",
        "ce_id": b"ab12",
        "ce_type": b"guardline.verdict.v1",
        "ce_source": b"https://acme.example/moderation",
        "ce_time": b"2025-11-24T16:00:00.250Z",
        "content-type": b"application/json",
    }
    review = dict(marks.put(Output(settings.topics.review, b"k", b"{}"), "ab12", time).headers or [])
    assert (review["ce_id"], review["ce_type"]) == (b"ab12/review", b"guardline.review.v1")


def test_two_records_of_usage_have_two_ids_and_an_aborted_attempt_has_that_of_the_next() -> None:
    settings = Settings(cloudevents={"write": True})
    marks = marks_of(settings, {})
    assert marks is not None

    def written(*finished: Finished) -> dict[str, dict[str, bytes | None]]:
        outputs = outputs_of(
            "moderation.usage", finished, lambda output, first, minute: marks.put_usage(output, first, minute, b"t")
        )
        return {json.loads(one.value or b"")["tenant_id"]: dict(one.headers or []) for one in outputs}

    first, second = (
        Finished(
            Source(TopicPartition("chat", 3), 1, offset),
            (),
            usage=tuple(Used(tenant, 29_400_000, 1, 1.0, False) for tenant in ("acme", "other")),
        )
        for offset in (7, 8)
    )
    once = written(first)
    assert once["acme"]["ce_type"] == b"guardline.usage.v1"
    assert (once["acme"]["ce_id"] or b"").endswith(b"/usage")
    assert once["acme"]["ce_id"] == written(first, second)["acme"]["ce_id"]
    assert len({headers["ce_id"] for found in (once, written(second)) for headers in found.values()}) == 4


@pytest.mark.parametrize("write", [False, True])
def test_a_dead_letter_keeps_the_headers_of_its_record_and_gets_none_of_a_cloud_event(write: bool) -> None:
    decoding = Decoding("dead", EventReader(Settings(cloudevents={"read": True, "write": write}), None))
    message = Message(topic="chat", partition=3, offset=42, key=b"k", value=b"{", headers=[*HEADERS])
    found = decoding(message, Source(TopicPartition("chat", 3), 1, 42))
    assert isinstance(found, Finished)
    (letter,) = found.outputs
    assert letter.headers is not None
    assert letter.headers[: len(HEADERS)] == HEADERS
    assert [name for name, _ in letter.headers[len(HEADERS) :]] == [*REASON_HEADERS]
    read = read_letter(letter.headers)
    assert read is not None
    assert read.headers_to_send()[: len(HEADERS)] == HEADERS


@pytest.mark.parametrize("name", ["ce_id", "Ce_Time", "content-type", "Content-Type"])
def test_a_header_that_the_worker_writes_cannot_be_carried(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("GUARDLINE_EVENTS__CARRY_HEADERS", json.dumps(["traceparent", name]))
    assert load().events.carry_headers == ["traceparent", name]
    monkeypatch.setenv("GUARDLINE_CLOUDEVENTS__WRITE", "true")
    with pytest.raises(
        Misconfigured, match=rf"events\.carry_headers: {name} cannot be carried with cloudevents\.write"
    ):
        load()


@pytest.mark.parametrize("source", ["", "a b", "ä", "<x>"])
def test_a_source_that_is_no_uri_is_refused(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setenv("GUARDLINE_CLOUDEVENTS__SOURCE", source)
    with pytest.raises(Misconfigured, match=r"^cloudevents\.source: "):
        load()
