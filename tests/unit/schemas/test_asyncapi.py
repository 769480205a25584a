"""The AsyncAPI document describes the topics as the workers use them, and keeps AsyncAPI's official schema."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from schemas.asyncapi import CHANNELS, MESSAGES, document
from schemas.generate import CONTRACTS
from schemas.headers import DeadLetterHeaders, OutputHeaders, ReplayNoteHeaders, VerdictHeaders
from schemas.reasons import DeadLetterReason
from workers.core.dead_letters import OUTPUT_TOO_LARGE, dead_letter, note_of, read_letter, too_large
from workers.core.frames import Frame, by_content_id, by_header
from workers.core.marks import Marks
from workers.core.reasons import Reason
from workers.core.records import Finished, Headers, Output, Source, TopicPartition
from workers.errors import Undecodable
from workers.settings import Settings, Topics

OFFICIAL = Path(__file__).parents[2] / "fixtures" / "asyncapi" / "3.0.0.json"
SOURCE = Source(TopicPartition("moderation.chat", 3), 1, 41)


@cache
def official() -> Draft7Validator:
    return Draft7Validator(json.loads(OFFICIAL.read_text(encoding="utf-8")))


def dangling(node: Any, root: dict[str, Any]) -> Iterator[str]:
    """Give the references that lead nowhere, which the official schema does not see."""
    if isinstance(node, dict):
        if isinstance(reference := node.get("$ref"), str) and not leads_somewhere(reference, root):
            yield reference
        for value in node.values():
            yield from dangling(value, root)
    elif isinstance(node, list):
        for value in node:
            yield from dangling(value, root)


def leads_somewhere(reference: str, root: Any) -> bool:
    before, *steps = reference.split("/")
    for step in steps:
        if not isinstance(root, dict) or step not in root:
            return False
        root = root[step]
    return before == "#"


def test_the_document_keeps_the_official_schema() -> None:
    assert [error.message for error in official().iter_errors(document())] == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("asyncapi",), "2.6.0"),
        (("operations", "readChat", "action"), "publish"),
        (("channels", "chat", "adress"), "x"),
        (("components", "messages", "event", "bindings", "kafka", "key"), "string"),
        (("components", "schemas", "Verdict", "type"), "objekt"),
    ],
)
def test_the_official_schema_refuses_a_wrong_document(place: tuple[str, ...], value: str) -> None:
    broken = node = copy.deepcopy(document())
    for step in place[:-1]:
        node = node[step]
    node[place[-1]] = value
    assert list(official().iter_errors(broken)) != []


def test_every_reference_leads_somewhere() -> None:
    assert list(dangling(document(), document())) == []
    broken = copy.deepcopy(document())
    del broken["components"]["schemas"]["Turn"], broken["channels"]["chat"]["messages"]["event"]
    assert set(dangling(broken, broken)) == {"#/components/schemas/Turn", "#/channels/chat/messages/event"}


def test_every_topic_of_a_worker_has_its_channel_and_its_direction() -> None:
    topics = Topics()
    read = {channel.address for channel in CHANNELS.values() if channel.action == "receive"}
    written = {channel.address for channel in CHANNELS.values() if channel.action == "send"}
    of_endpoints = {channel.address for channel in CHANNELS.values() if channel.parameters}
    assert (read | written) - of_endpoints == set(topics.all)
    assert (read >= set(topics.inputs), written >= set(topics.outputs)) == (True, True)


def test_every_payload_is_a_published_contract() -> None:
    payloads = {message.model for message in MESSAGES.values() if message.model is not None}
    assert payloads <= set(CONTRACTS.values())


def test_every_kind_of_record_is_in_a_channel() -> None:
    assert {name for channel in CHANNELS.values() for name in channel.messages} == set(MESSAGES)


def test_the_reasons_are_those_of_dead_letters() -> None:
    assert {reason.value for reason in DeadLetterReason} == {*(reason.value for reason in Reason), OUTPUT_TOO_LARGE}


def read_headers(headers: Headers) -> DeadLetterHeaders:
    """Read the headers by the model, and check that it names all of them."""
    written = {name: (value or b"").decode() for name, value in headers}
    model = DeadLetterHeaders.model_validate(written)
    assert model.model_dump(mode="json", by_alias=True, exclude_unset=True) == written
    return model


def test_the_headers_of_a_dead_letter_are_those_of_the_document() -> None:
    own: Headers = [("replayed.from", b"moderation.chat/3/7")]
    finished = dead_letter("d", SOURCE, None, b"{", own, Undecodable(Reason.NOT_JSON, "line 1"))
    model = read_headers(finished.outputs[0].headers or [])
    assert (model.reason, model.source_offset, model.source_keyless) == ("not_json", "41", "true")
    assert model.replayed_from == "moderation.chat/3/7"


def test_the_headers_of_a_dead_letter_that_was_cut_are_those_of_the_document() -> None:
    whole = Finished(SOURCE, (Output("v", b"k", b"x" * 100_000),))
    headers = too_large(whole, "d", 50_000).outputs[0].headers or []
    model = read_headers(headers)
    assert (model.reason, model.truncated_length) == ("output_too_large", "100000")
    assert read_letter(headers) is not None


def test_the_header_of_a_replay_note_is_that_of_the_document() -> None:
    written = {name: (value or b"").decode() for name, value in note_of(41)}
    assert ReplayNoteHeaders.model_validate(written).model_dump(by_alias=True) == written == {"replayed.offset": "41"}


def test_the_headers_that_a_worker_writes_are_those_of_the_document() -> None:
    settings = Settings(cloudevents={"write": True})
    guid = "0af76519-16cd-43dd-8448-eb211c80319c"
    topics = settings.topics
    both = (*by_header(guid).headers, *by_content_id(7).headers)
    marks = Marks(settings, dict.fromkeys(topics.outputs, Frame(headers=both)))
    carried: Headers = [("traceparent", b"t"), ("tracestate", b"t")]
    for topic, model, own in (
        (topics.verdicts, VerdictHeaders, carried),
        (topics.review, VerdictHeaders, carried),
        (topics.usage, OutputHeaders, []),
    ):
        headers = marks.put(Output(topic, b"k", b"{}", own), "ab12", b"t").headers or []
        written = {name: (value or b"").decode("latin-1") for name, value in headers}
        assert model.model_validate(written).model_dump(by_alias=True, exclude_unset=True) == written
        assert set(document()["components"]["schemas"][model.__name__]["properties"]) == set(written)


def test_the_document_says_what_a_field_means() -> None:
    schemas = document()["components"]["schemas"]
    assert "has all attributes" in schemas["ReviewItem"]["description"]
    assert "hash of pipeline" in schemas["ReviewItem"]["properties"]["verdict_id"]["description"]
    assert "SHA-256" in schemas["DeadLetterHeaders"]["properties"]["truncated.sha256"]["description"]
