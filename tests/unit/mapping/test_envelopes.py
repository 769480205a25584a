from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from workers.core.records import Record
from workers.errors import Skipped, Undecodable
from workers.mapping.document import parse_yaml
from workers.mapping.mapping import Mapping
from workers.settings import Events

EVENT = {"event_id": "1", "tenant_id": "t", "surface": "chat", "text": "I will find you"}


def mapped(written: str, value: object, **record: Any) -> dict[str, Any]:
    given = value if isinstance(value, bytes) else json.dumps(value).encode()
    (only,) = Mapping(parse_yaml(written, "mapping.yaml")).events(Record(given, **record), Events())
    return {**only.event}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("{}", b"\0\0\0\0\7" + json.dumps(EVENT).encode()),
        ("unwrap: cloudevents", {"specversion": "1.0", "id": "x", "source": "/s", "type": "t", "data": EVENT}),
        (
            "unwrap: cloudevents",
            {"specversion": "1.0", "data_base64": base64.b64encode(json.dumps(EVENT).encode()).decode()},
        ),
        ("unwrap: debezium", {"payload": {"op": "c", "before": None, "after": EVENT}}),
        ("unwrap: debezium", {"schema": {}, "payload": {"op": "u", "before": {}, "after": EVENT}}),
        ("unwrap: debezium", {"op": "r", "before": None, "after": json.dumps(EVENT)}),
        ("unwrap: {field: message.body}", {"message": {"body": json.dumps(EVENT)}}),
        (
            "unwrap: [debezium, {field: payload}]",
            b"\0\0\0\0\7" + json.dumps({"op": "c", "after": {"payload": json.dumps(EVENT)}}).encode(),
        ),
    ],
)
def test_an_envelope_is_removed(written: str, value: object) -> None:
    assert mapped(written, value) == EVENT


@pytest.mark.parametrize("written", ["unwrap: cloudevents", "unwrap: debezium"])
def test_a_record_without_the_envelope_is_unchanged(written: str) -> None:
    assert mapped(written, EVENT) == EVENT


@pytest.mark.parametrize(("op", "after"), [("d", None), ("t", None), ("m", None), (5, None), ("d", EVENT)])
def test_a_change_that_leaves_no_row_is_skipped_as_deleted(op: object, after: object) -> None:
    with pytest.raises(Skipped) as caught:
        mapped("unwrap: debezium", {"payload": {"op": op, "before": EVENT, "after": after}})
    assert caught.value.reason == "deleted"


def test_a_change_whose_operation_is_nested_deeply_is_skipped() -> None:
    """The parser reads about 1,000 levels, and Python can write fewer."""
    value = b'{"op": ' + b"[" * 1_000 + b"]" * 1_000 + b', "after": {}}'
    with pytest.raises(Skipped, match=r"the record reports a deleted row$"):
        mapped("unwrap: debezium", value)


@pytest.mark.parametrize("op", ["c", "u", "r"])
def test_a_change_of_a_row_without_the_row_is_a_dead_letter(op: str) -> None:
    change = {"op": op, "after": None, "updateDescription": {"updatedFields": '{"text": "I will find you"}'}}
    with pytest.raises(Undecodable, match=r"missing_field: after: .*change_streams_update_full") as caught:
        mapped("unwrap: debezium", {"payload": change})
    assert "find you" not in caught.value.detail


def test_a_frame_without_json_is_a_dead_letter_that_names_the_schema() -> None:
    with pytest.raises(Undecodable, match="a Schema Registry frame of schema 258, and does not go on as JSON"):
        mapped("{}", b"\0\0\0\1\2\x0ahello")


BINARY = [("ce_specversion", b"1.0"), ("ce_id", b"A1"), ("ce_subject", None), ("content-type", b"application/json")]


def test_the_attributes_of_a_cloud_event_are_read_in_both_modes() -> None:
    written = "unwrap: cloudevents\nevent_id: {envelope: id}"
    assert mapped(written, EVENT, headers=BINARY)["event_id"] == "A1"
    assert mapped(written, {"specversion": "1.0", "id": "A2", "data": EVENT})["event_id"] == "A2"


def test_a_plain_text_value_is_the_text_itself() -> None:
    written = "text: '@'\nevent_id: {envelope: id}\ntenant_id: {value: t}"
    headers = [*BINARY[:2], ("Content-Type", b"text/plain; charset=utf-8")]
    assert mapped(written, b"I will find you {", headers=headers)["text"] == "I will find you {"
    with pytest.raises(Undecodable, match="not_json"):
        mapped(written, b"I will find you {", headers=BINARY)


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        ({"specversion": "1.0", "data_base64": "?"}, "data_base64: it is not base64"),
        ({"specversion": "1.0", "data_base64": 5}, "data_base64: it is not base64"),
        ({"specversion": "1.0"}, "tenant_id: the field is required"),
        (b"\xff", "byte 0 is not UTF-8"),
        (b"hello", "Expecting value"),
    ],
)
def test_a_record_without_an_event_is_a_dead_letter_with_a_sentence(value: object, detail: str) -> None:
    with pytest.raises(Undecodable) as caught:
        mapped("unwrap: cloudevents", value)
    assert detail in caught.value.detail


def test_a_mapping_reads_almost_json_as_generously_as_a_worker_without_one() -> None:
    value = b'\xef\xbb\xbf{"event_id": 1, "tenant_id": "t", "body": "half \\ud83d", "x": NaN}\0\0'
    assert mapped("text: body", value)["text"] == "half \ufffd"
