import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.event import MAX_ATTRIBUTES, MAX_CONTEXT_TURNS, MAX_ID_CHARS, MAX_TEXT_CHARS, Event
from workers.core.decode import Reason, decode
from workers.errors import Undecodable

SMALLEST: dict[str, object] = {"event_id": "e1", "tenant_id": "acme", "surface": "chat", "text": "hello"}


def written(**changes: object) -> bytes:
    return json.dumps({**SMALLEST, **changes}).encode()


def reason_of(value: bytes | None) -> str:
    with pytest.raises(Undecodable) as caught:
        decode(value)
    assert caught.value.reason in set(Reason)
    assert len(caught.value.detail) <= 300
    return caught.value.reason


def test_the_smallest_event_is_taken_as_it_is() -> None:
    assert decode(json.dumps(SMALLEST).encode()) == SMALLEST


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
    assert decode(json.dumps({**full, "unknown": [1, {"a": None}]}).encode()) == full


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "not_json"),
        (b"\x00\x00\x00\x00\x01{}", "not_json"),
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
        (written(text="x" * 300_000), "too_large"),
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
def test_what_is_refused_has_its_reason(value: bytes | None, reason: str) -> None:
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
        (written(event_id=7), "event_id: Input should be a valid string"),
    ],
)
def test_a_person_reads_what_is_wrong(value: bytes | None, sentence: str) -> None:
    with pytest.raises(Undecodable) as caught:
        decode(value)
    assert caught.value.detail == sentence


@pytest.mark.parametrize(
    "text", [" ", "\n\t", "\x00", "a\x00b", "NaN", "-Infinity", "😀" * MAX_TEXT_CHARS, "<|im_end|>"]
)
def test_any_unicode_text_is_taken(text: str) -> None:
    value = json.dumps({**SMALLEST, "text": text}, ensure_ascii=False).encode()
    assert decode(value)["text"] == text


def test_a_surrogate_pair_is_one_character() -> None:
    assert decode(written(text="😀"))["text"] == "😀"


def test_of_duplicate_keys_the_last_one_counts() -> None:
    assert decode(written()[:-1] + b',"text":"later"}')["text"] == "later"


def test_the_size_limit_is_the_callers() -> None:
    value = written()
    assert decode(value, max_bytes=len(value)) == SMALLEST
    with pytest.raises(Undecodable, match="too_large"):
        decode(value, max_bytes=len(value) - 1)


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
        decode(written(**changes))
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
        assert decode(value) == model.model_dump(mode="json", exclude_unset=True)
