import json
from pathlib import Path
from typing import cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.event import MAX_ATTRIBUTES, MAX_CONTEXT_TURNS, MAX_ID_CHARS, MAX_TEXT_CHARS, Event, EventDict
from workers.core.decode import UNNAMED, Decoded, Reason, decode, from_document
from workers.core.json_text import parse
from workers.core.records import Source, TopicPartition
from workers.errors import Skipped, Undecodable
from workers.settings import Events

GENEROUS = Events()
STRICT = Events(strict=True)
SOURCE = Source(TopicPartition("post-comments", 3), 1, 41)
SMALLEST: dict[str, object] = {"event_id": "e1", "tenant_id": "acme", "surface": "chat", "text": "hello"}


def written(**changes: object) -> bytes:
    return json.dumps({**SMALLEST, **changes}).encode()


def reason_of(value: bytes | None, events: Events = STRICT) -> str:
    with pytest.raises(Undecodable) as caught:
        decode(value, events)
    assert caught.value.reason in set(Reason)
    assert len(caught.value.detail) <= 300
    return caught.value.reason


def test_the_smallest_event_is_accepted_unchanged() -> None:
    assert decode(json.dumps(SMALLEST).encode(), GENEROUS) == Decoded(cast(EventDict, SMALLEST))


def test_a_full_event_keeps_every_field_and_loses_unknown_ones() -> None:
    full: dict[str, object] = {
        **SMALLEST,
        "schema_version": 1,
        "author_id": None,
        "language": "en-GB",
        "role": "assistant",
        "context": [{"role": "user", "text": ""}],
        "created_at": "2026-02-28T23:59:60.5+01:00",
        "attributes": {"room": "lobby"},
    }
    assert decode(json.dumps({**full, "unknown": [1, {"a": None}]}).encode(), GENEROUS).event == full


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "not_json"),
        (b"\x00\x00\x00\x00\x01{}", "missing_field"),
        (b"\xef\xbb\xbf{}", "not_json"),
        (b"\xff\xfe", "not_utf8"),
        (b'{"text":"\xed\xa0\x80"}', "not_utf8"),
        (b"[]", "wrong_type"),
        (b'"text"', "wrong_type"),
        (b"null", "wrong_type"),
        (b"{}", "missing_field"),
        (json.dumps(SMALLEST).encode() + b" x", "not_json"),
        (json.dumps(SMALLEST).encode()[:-1], "not_json"),
        (written(text=""), "empty_text"),
        (written(text="x" * (MAX_TEXT_CHARS + 1)), "too_large"),
        (written(text="x" * 1_100_000), "too_large"),
        (written(text=None), "invalid_field"),
        (written(event_id=""), "invalid_field"),
        (written(event_id=7), "invalid_field"),
        (written(tenant_id="x" * (MAX_ID_CHARS + 1)), "invalid_field"),
        (written(surface="email"), "invalid_field"),
        (written(role="system"), "invalid_field"),
        (written(schema_version="1"), "invalid_field"),
        (written(schema_version=True), "invalid_field"),
        (written(created_at="yesterday"), "invalid_field"),
        (written(created_at="2026-13-01T00:00:00Z"), "invalid_field"),
        (written(context=[{"role": "user", "text": "x"}] * (MAX_CONTEXT_TURNS + 1)), "invalid_field"),
        (written(context=[{"text": "x"}]), "missing_field"),
        (written(attributes={"x": 1}), "invalid_field"),
        (written(attributes=[]), "invalid_field"),
        (written(context=[[]]), "invalid_field"),
        (written(attributes={str(n): "x" for n in range(MAX_ATTRIBUTES + 1)}), "invalid_field"),
        (written(attributes={"k" * 5_000: "x"}), "invalid_field"),
        (written(text="\ud800"), "invalid_unicode"),
        (written(unknown="\udc00"), "invalid_unicode"),
        (written(unknown=float("nan")), "not_json"),
        (written(unknown=[-float("inf")]), "not_json"),
        (written()[:-1] + b',"z":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep"),
        (b"[" * 200_000, "too_deep"),
        (b'{"a":' * 40_000, "too_deep"),
        (written()[:-1] + b',"z":' + b"9" * 5_000 + b"}", "not_json"),
    ],
)
def test_a_strict_worker_gives_the_reason_of_each_refusal(value: bytes | None, reason: str) -> None:
    assert reason_of(value) == reason


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "the record has no value; an event is a JSON object"),
        (b"[]", "the value is JSON, but not an object"),
        (b"{}", "event_id: the field is required"),
        (written(context=[{"text": "x"}]), "context.0.role: the field is required"),
        (written(text=""), "text: there is nothing to judge in an empty text"),
        (written(unknown=float("nan")), "NaN is not JSON; send null or leave the field out"),
        (written()[:-1] + b"\xff}", f"byte {len(written()) - 1} is not UTF-8"),
        (written(event_id=7), "event_id: has to be a text"),
    ],
)
def test_a_strict_worker_says_what_is_wrong(value: bytes | None, sentence: str) -> None:
    with pytest.raises(Undecodable) as caught:
        decode(value, STRICT)
    assert caught.value.detail == sentence


@pytest.mark.parametrize(
    "text", [" ", "\n\t", "\x00", "a\x00b", "NaN", "-Infinity", "😀" * MAX_TEXT_CHARS, "<|im_end|>"]
)
def test_any_unicode_text_is_accepted(text: str) -> None:
    value = json.dumps({**SMALLEST, "text": text}, ensure_ascii=False).encode()
    assert decode(value, GENEROUS).event["text"] == text


def test_a_surrogate_pair_is_one_character() -> None:
    assert decode(written(text="😀"), GENEROUS).event["text"] == "😀"


def test_the_last_of_duplicate_keys_counts() -> None:
    assert decode(written()[:-1] + b',"text":"later"}', GENEROUS).event["text"] == "later"


def test_the_size_limit_comes_from_the_caller() -> None:
    value = written()
    assert decode(value, Events(max_bytes=len(value))).event == SMALLEST
    with pytest.raises(Undecodable, match="too_large"):
        decode(value, Events(max_bytes=len(value) - 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"surface": "my secret"},
        {"author_id": {"secret": "secret"}},
        {"context": [{"role": "my secret", "text": "secret"}]},
        {"attributes": {"my secret words": 1}},
        {"attributes": {"my secret " * 20: "x"}},
        {"attributes": {"x": "secret" * 1000}},
    ],
)
def test_a_detail_never_repeats_the_content(changes: dict[str, object]) -> None:
    with pytest.raises(Undecodable) as caught:
        decode(written(**changes), STRICT)
    assert caught.value.detail.startswith(next(iter(changes)))
    assert "secret" not in str(caught.value)


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
ids = st.text(st.characters(exclude_categories=["Cs"]), max_size=3) | st.sampled_from(["x" * 256, "x" * 257])
roles = st.sampled_from(["user", "assistant", "system", "User"])
turns = st.fixed_dictionaries({"role": roles, "text": st.text()}, optional={"more": anything}) | anything
times = st.sampled_from(
    [
        "2026-11-24T02:00:00Z",
        "2026-11-24t02:00:00.123+00:00",
        "2026-11-24",
        "2026-11-24T24:00:00Z",
        "２０２６-11-24T02:00:00Z",
        "2026-11-24T02:00:00Z\n",
    ]
)
near_events = st.fixed_dictionaries(
    {
        "event_id": ids | anything,
        "tenant_id": ids,
        "surface": st.sampled_from(["chat", "comment", "CHAT", ""]),
        "text": st.text() | st.sampled_from(["x" * MAX_TEXT_CHARS, "é" * (MAX_TEXT_CHARS + 1)]) | anything,
    },
    optional={
        "schema_version": st.integers(-1, 3) | anything,
        "author_id": ids | anything,
        "language": ids | anything,
        "role": roles | anything,
        "context": st.lists(turns, max_size=3) | st.just([{"role": "user", "text": "x"}] * 33) | anything,
        "created_at": times | anything,
        "attributes": st.dictionaries(st.text(), st.text() | scalars, max_size=3) | anything,
        "unknown": anything,
    },
)
values = st.one_of(
    near_events.map(lambda event: json.dumps(event).encode()),
    near_events.map(lambda event: json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.tuples(near_events, st.data()).map(
        lambda pair: json.dumps({k: v for k, v in pair[0].items() if k != "text"}).encode()
    ),
    anything.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=64),
)


@given(values)
def test_the_fast_path_accepts_refuses_and_reads_exactly_like_the_model(value: bytes) -> None:
    try:
        model = Event.model_validate_json(value)
    except ValidationError:
        reason_of(value)
    else:
        event = model.model_dump(mode="json", exclude_unset=True)
        assert decode(value, STRICT).event == event
        assert decode(value, GENEROUS).event == event


def without_nulls(event: EventDict) -> dict[str, object]:
    return {name: value for name, value in event.items() if value not in (None, [], {})}


@given(values)
def test_both_paths_read_a_valid_event_alike(value: bytes) -> None:
    try:
        fast = decode(value, STRICT)
    except Undecodable:
        return
    slow = from_document(parse(value), GENEROUS)
    assert without_nulls(slow.event) == without_nulls(fast.event)
    assert slow.ignored_fields == ()


@given(values)
def test_every_decoded_event_keeps_the_contract_except_for_long_texts_and_attributes(value: bytes) -> None:
    try:
        decoded = decode(value, GENEROUS, SOURCE)
    except Undecodable:
        reason_of(value, GENEROUS)
        return
    event = {**decoded.event, "text": decoded.event["text"][:MAX_TEXT_CHARS] or "x", "attributes": {}}
    Event.model_validate_json(orjson.dumps(event))
    orjson.dumps(decoded.event)
    assert set(decoded.ignored_fields) <= set(Event.model_fields)


TEXT = "I will find you and kill you"
BLOCKED: dict[str, object] = {"event_id": "1", "tenant_id": "t", "surface": "chat", "text": TEXT}
TURN = {"role": "user", "text": "x"}


def plain(**changes: object) -> bytes:
    return json.dumps({**BLOCKED, **changes}).encode()


TAKEN: list[tuple[str, bytes, dict[str, object], tuple[str, ...]]] = [
    ("optional fields null", plain(role=None, context=None, attributes=None, created_at=None, language=None), {}, ()),
    (
        "optional fields empty",
        plain(role="", context="", attributes="", created_at="", language="", author_id=""),
        {},
        (),
    ),
    (
        "attributes of any JSON",
        plain(attributes={"a": 12, "b": [{"c": None}]}),
        {"attributes": {"a": 12, "b": [{"c": None}]}},
        (),
    ),
    ("attributes that are no object", plain(attributes=[1]), {}, ("attributes",)),
    (
        "a time without a zone",
        plain(created_at="2025-01-01T10:00:00.123456"),
        {"created_at": "2025-01-01T10:00:00.123456Z"},
        (),
    ),
    (
        "a time in epoch milliseconds",
        plain(created_at=1732752000123),
        {"created_at": "2024-11-28T00:00:00.123000Z"},
        (),
    ),
    ("a time that nobody can read", plain(created_at="yesterday"), {}, ("created_at",)),
    ("half an emoji in the text", plain(text=TEXT + " \ud83d"), {"text": TEXT + " \ufffd"}, ()),
    ("half an emoji, in bytes", plain()[:-2] + b' \xed\xa0\xbd"}', {"text": TEXT + " \ufffd"}, ()),
    (
        "a whole emoji in two halves, in bytes",
        plain()[:-2] + b' \xed\xa0\xbd\xed\xb8\x80"}',
        {"text": TEXT + " 😀"},
        (),
    ),
    ("half an emoji in a name", plain(author_id="x\udc00"), {"author_id": "x\ufffd"}, ()),
    ("half an emoji in a field that nobody reads", plain(nick="x\ud83d"), {}, ()),
    ("NaN in a field that nobody reads", plain(score=float("nan")), {}, ()),
    ("an integer that no parser takes", plain()[:-1] + b', "n": ' + b"9" * 5_000 + b"}", {}, ()),
    ("a control character", plain().replace(b"find", b"find\n"), {"text": TEXT.replace("find", "find\n")}, ()),
    (
        "33 earlier turns",
        plain(context=[{"role": "assistant", "text": "0"}, *[TURN] * 32]),
        {"context": [TURN] * 32},
        ("context",),
    ),
    ("a turn without a text", plain(context=[{"role": "user"}, TURN]), {"context": [TURN]}, ("context",)),
    (
        "a turn that was deleted",
        plain(context=[{"role": "user", "text": None}, None, TURN]),
        {"context": [{"role": "user", "text": ""}, TURN]},
        (),
    ),
    (
        "a turn of an unknown role",
        plain(context=[{"role": "moderator", "text": "x"}]),
        {"context": [TURN]},
        ("context",),
    ),
    ("turns that are only texts", plain(context=["x"]), {"context": [TURN]}, ()),
    ("a turn that is not in a list", plain(context=TURN), {"context": [TURN]}, ()),
    (
        "a long turn",
        plain(context=["a" + "x" * MAX_TEXT_CHARS]),
        {"context": [{"role": "user", "text": "x" * MAX_TEXT_CHARS}]},
        ("context",),
    ),
    ("a byte order mark", b"\xef\xbb\xbf" + plain(), {}, ()),
    ("trailing NULs", plain() + b"\0\0\0", {}, ()),
    (
        "ids that are numbers",
        plain(event_id=77, author_id=12345678901234567890),
        {"event_id": "77", "author_id": "12345678901234567890"},
        (),
    ),
    ("an id that is a whole float", plain(event_id=77.0), {"event_id": "77"}, ()),
    ("a tenant that is a number", plain(tenant_id=5), {"tenant_id": "5"}, ()),
    ("a long nickname", plain(author_id="x" * 257), {}, ("author_id",)),
    ("a name that is an object", plain(author_id={"id": 1}), {}, ("author_id",)),
    ("a language that is none", plain(language="x" * 36), {}, ("language",)),
    ("a surface in capitals", plain(surface="COMMENT"), {"surface": "comment"}, ()),
    ("an unknown surface", plain(surface="email"), {"surface": "comment"}, ("surface",)),
    ("a role in capitals", plain(role="Assistant"), {"role": "assistant"}, ()),
    ("an unknown role", plain(role="bot"), {}, ("role",)),
    ("a version that is a string", plain(schema_version="1"), {"schema_version": 1}, ()),
    ("a version that is none", plain(schema_version=-1), {}, ("schema_version",)),
    ("a text that is a number", plain(text=42), {"text": "42"}, ()),
    ("a text that is null", plain(text=None), {"text": ""}, ()),
    ("an empty text", plain(text=""), {"text": ""}, ()),
    ("no id", plain(event_id=None), {"event_id": "post-comments/3/41"}, ("event_id",)),
    (
        "no id, after the id of a schema",
        b"\0\0\0\0\7" + plain(event_id=None),
        {"event_id": "post-comments/3/41"},
        ("event_id",),
    ),
    (
        "no id and a long nickname",
        plain(event_id=None, author_id="x" * 257),
        {"event_id": "post-comments/3/41"},
        ("event_id", "author_id"),
    ),
    ("an id that is an object", plain(event_id={"a": 1}), {"event_id": "post-comments/3/41"}, ("event_id",)),
    ("nested past every parser", plain()[:-1] + b', "z": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", {}, ()),
]


@pytest.mark.parametrize(("value", "changes", "ignored"), [row[1:] for row in TAKEN], ids=[row[0] for row in TAKEN])
def test_a_wrong_field_that_judging_does_not_need_is_left_out(
    value: bytes, changes: dict[str, object], ignored: tuple[str, ...]
) -> None:
    decoded = decode(value, GENEROUS, SOURCE)
    assert decoded == Decoded(cast(EventDict, {**BLOCKED, **changes}), ignored)


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (b"hello", "not_json", "Expecting value (line 1, column 1)"),
        (b"", "not_json", "Expecting value (line 1, column 1)"),
        (b"[" * 100_000, "not_json", "nested deeper than a parser goes"),
        (b'{"text": "\xff"}', "not_utf8", "byte 10 is not UTF-8"),
        (b"\0\0\0\0\7\x0aavro", "not_json", "a Schema Registry frame of schema 7, and does not go on as JSON"),
        (b"[]", "wrong_type", "not an object"),
        (b'{"event_id": "1", "surface": "chat", "text": "x"}', "missing_field", "tenant_id: the field is required"),
        (plain(tenant_id=""), "missing_field", "tenant_id: the field is required"),
        (plain(tenant_id="x" * 257), "invalid_field", "tenant_id: "),
        (plain(tenant_id=True), "invalid_field", "tenant_id: "),
        (b'{"event_id": "1", "tenant_id": "t"}', "missing_field", "text: the field is required"),
        (plain(text=["a"]), "invalid_field", "text: it is neither a string nor a number"),
        (plain(text=True), "invalid_field", "text: it is neither a string nor a number"),
        (plain(text=float("inf")), "invalid_field", "text: it is neither a string nor a number"),
    ],
)
def test_a_record_without_a_readable_text_is_a_dead_letter(value: bytes, reason: str, detail: str) -> None:
    with pytest.raises(Undecodable) as caught:
        decode(value, GENEROUS)
    assert caught.value.reason == reason
    assert detail in caught.value.detail


@pytest.mark.parametrize(
    ("value", "events", "sentence"),
    [
        (b"7", GENEROUS, "the value is JSON, but not an object"),
        (b"{}", GENEROUS, "tenant_id: the field is required; records of another shape need a mapping (events.mapping)"),
        (
            b"{}",
            Events(mapping=Path("a.yaml")),
            (
                "tenant_id: the field is required; the mapping does not say where it is, "
                "and the record has no field of this name"
            ),
        ),
        (plain(tenant_id=True), GENEROUS, "tenant_id: it is neither a string of 1 to 256 characters nor a number"),
        (plain(text=True), GENEROUS, "text: it is neither a string nor a number"),
    ],
)
def test_a_worker_says_why_a_record_has_no_readable_text(value: bytes, events: Events, sentence: str) -> None:
    with pytest.raises(Undecodable) as caught:
        decode(value, events)
    assert caught.value.detail == sentence


def test_a_tombstone_is_skipped_and_an_empty_text_on_request() -> None:
    with pytest.raises(Skipped) as caught:
        decode(None, GENEROUS)
    assert (caught.value.reason, caught.value.detail) == ("tombstone", "the record has no value")
    for text in ("", None):
        with pytest.raises(Skipped) as caught:
            decode(plain(text=text), Events(on_empty_text="skip"))
        assert (caught.value.reason, caught.value.detail) == (
            "empty_text",
            "there is nothing to judge in an empty text",
        )


@pytest.mark.parametrize(
    ("source", "surface", "event_id"),
    [
        (None, "chat", UNNAMED),
        (Source(TopicPartition("moderation.chat", 0), 1, 0), "chat", "moderation.chat/0/0"),
        (SOURCE, "comment", "post-comments/3/41"),
        (Source(TopicPartition("comment", 0), 1, 0), "comment", "comment/0/0"),
        (Source(TopicPartition("commentX", 0), 1, 0), "chat", "commentX/0/0"),
        (Source(TopicPartition("x" * 249, 100), 1, 10**9), "chat", ("x" * 249 + "/100/1000000000")[-256:]),
    ],
)
def test_an_event_with_a_tenant_and_a_text_alone_is_judged(source: Source | None, surface: str, event_id: str) -> None:
    decoded = decode(b'{"tenant_id": "t", "text": "x"}', GENEROUS, source)
    event = {"event_id": event_id, "tenant_id": "t", "surface": surface, "text": "x"}
    assert decoded == Decoded(cast(EventDict, event), ("event_id",))


@pytest.mark.parametrize("is_fast", [True, False])
def test_a_text_over_the_limit_keeps_both_ends_and_the_rest_is_counted(is_fast: bool) -> None:
    text = "a" * 700 + "b" * 19_300 + "c" * 700
    value = plain(text=text, **({} if is_fast else {"language": 7}))
    decoded = decode(value, Events(max_text_chars=1_401))
    assert decoded.event["text"] == "a" * 700 + "\n" + "c" * 700
    assert decoded.truncated_text_chars == 19_300
    assert decode(value, Events(max_text_chars=len(text))).event["text"] == text


def test_a_text_longer_than_the_contract_is_kept_whole() -> None:
    decoded = decode(plain(text="x" * 40_000), GENEROUS)
    assert (len(decoded.event["text"]), decoded.truncated_text_chars) == (40_000, 0)
