from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.core.records import Record, Source, TopicPartition
from workers.errors import Skipped, Undecodable
from workers.mapping.document import parse_yaml
from workers.mapping.examples import NAMES, read
from workers.mapping.mapping import Mapping
from workers.settings import Events

HERE = Source(TopicPartition("mod.shop.chat", 3), 1, 42)


def events(written: str, value: object, limits: Events = Events(), **record: Any) -> list[dict[str, Any]]:  # noqa: B008
    compiled = Mapping(parse_yaml(written, "mapping.yaml"))
    found = compiled.events(Record(json.dumps(value).encode(), **record), limits, HERE)
    return [{**one.event} for one in found]


def event(written: str, value: object, **record: Any) -> dict[str, Any]:
    (only,) = events(written, value, **record)
    return only


BASE = {"event_id": "1", "tenant_id": "t", "text": "hello"}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("author.id", "9"),
        ("author.missing || 'nobody'", "nobody"),
        ("{value: fixed}", "fixed"),
        ("{header: x-user}", "from-header"),
        ("{key: true}", "the-key"),
        ("{topic: '^mod\\.(.*)\\.chat$'}", "shop"),
        ("{topic: shop}", "shop"),
        ("{first: [{header: none}, missing, {value: ''}, {value: last}]}", "last"),
        ("{join: [author.id, missing, {key: true}], with: /}", "9/the-key"),
        ("{join: tags, with: '+'}", "a+b"),
        ("{envelope: author.id}", "9"),
    ],
)
def test_a_field_comes_from_where_the_mapping_says(source: str, found: str) -> None:
    record: dict[str, Any] = {
        "key": b"the-key",
        "headers": [("x-user", b"earlier"), ("x-user", b"from-header")],
        "topic": "mod.shop.chat",
    }
    document = {**BASE, "author": {"id": 9}, "tags": ["a", None, "b"]}
    assert event(f"author_id: {source}", document, **record)["author_id"] == found


def test_a_field_that_is_not_named_keeps_its_name_and_null_leaves_it_out() -> None:
    document = {**BASE, "language": "en", "author_id": "x"}
    assert event("tenant_id: {value: acme}", document) == {**document, "tenant_id": "acme", "surface": "chat"}
    assert "author_id" not in event("author_id: null", document)


def test_a_field_that_finds_nothing_is_left_out() -> None:
    found = event("author_id: nobody\nlanguage: nobody\ncontext: nobody\nattributes: {a: nobody, b: text}", BASE)
    assert found == {**BASE, "surface": "chat", "attributes": {"b": "hello"}}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (["I will ", {"type": "bold", "text": "find you"}, None, " 2", 3, 4.0], "I will find you 234"),
        ({"type": "doc", "text": [{"text": "nested"}]}, "nested"),
        (5, "5"),
        (2.0**53, "9007199254740992.0"),
    ],
)
def test_a_text_in_pieces_is_one_text(text: object, found: str) -> None:
    assert event("text: body", {**BASE, "body": text})["text"] == found


def test_several_texts_are_joined_or_become_an_event_each() -> None:
    post = {**BASE, "title": "A &amp; B", "body": "**hello**", "options": ["x", {"text": "y"}]}
    joined = "text: {join: [{html: title}, {markdown: body}, missing, {join: options, with: ', '}]}"
    assert event(joined, post)["text"] == "A & B\nhello\nx, y"
    each = "texts: {title: {html: title}, body: {markdown: body}, other: missing}"
    assert [(one["event_id"], one["text"]) for one in events(each, post)] == [("1/title", "A & B"), ("1/body", "hello")]


def test_a_join_holds_a_repeated_text_once() -> None:
    assert event("text: {join: [a, b, c]}", {**BASE, "a": "same", "b": "same", "c": "other"})["text"] == "same\nother"


def test_an_empty_text_among_several_is_not_an_event_unless_all_are_empty() -> None:
    written = "texts: {title: title, body: body}"
    assert [one["text"] for one in events(written, {**BASE, "title": "", "body": "x"})] == ["x"]
    assert [one["event_id"] for one in events(written, {**BASE, "title": "", "body": ""})] == ["1/title"]
    with pytest.raises(Skipped, match="empty_text"):
        events(written, {**BASE, "title": "", "body": ""}, Events(on_empty_text="skip"))


def test_events_of_a_record_without_an_id_have_different_ids() -> None:
    written = "event_id: missing\ntexts: {title: title, body: body}"
    found = events(written, {**BASE, "title": "a", "body": "b"})
    assert [one["event_id"] for one in found] == ["mod.shop.chat/3/42/title", "mod.shop.chat/3/42/body"]


@pytest.mark.parametrize(
    ("edited", "event_id"), [(None, "1"), (False, "1"), ("", "1"), ("2025", "1/2025"), (7.0, "1/7"), (0, "1/0")]
)
def test_an_edited_message_has_an_id_of_its_own(edited: object, event_id: str) -> None:
    assert event("revision: edited", {**BASE, "edited": edited})["event_id"] == event_id


def test_integers_of_any_length_keep_their_digits() -> None:
    ids = [2**63, 2**64 - 1, 2**64, 12345678901234567890123, 12345678901234567890124]
    found = [event("event_id: id\ntext: {join: [id, text]}", {**BASE, "id": one}) for one in ids]
    assert [one["event_id"] for one in found] == [str(one) for one in ids]
    assert [one["text"] for one in found] == [f"{one}\nhello" for one in ids]


def test_a_number_that_is_not_finite_is_not_a_text() -> None:
    document = {**BASE, "score": [float("inf"), float("nan"), "points"]}
    assert event("text: score", document)["text"] == "points"
    with pytest.raises(Undecodable, match="text: 'score' finds nothing"):
        event("text: score", {**BASE, "score": 10**500})


@pytest.mark.parametrize(
    ("quotes", "text", "context"),
    [
        ("keep", "theirs\nmine", None),
        ("context", "mine", [{"role": "user", "text": "before"}, {"role": "user", "text": "theirs"}]),
        ("leave_out", "mine", None),
    ],
)
@pytest.mark.parametrize("source", ["{markdown: body}", "{html: body}", "{slack: body}", "{first: [{markdown: body}]}"])
def test_quotes_are_judged_or_context_or_left_out(quotes: str, text: str, context: object, source: str) -> None:
    body = "<blockquote>theirs</blockquote>mine" if "html" in source else "> theirs\nmine"
    context = context or [{"role": "user", "text": "before"}]
    found = event(f"text: {source}\ncontext: before\nquotes: {quotes}", {**BASE, "body": body, "before": "before"})
    assert (found["text"], found["context"]) == (text, context)


def test_a_text_without_a_format_keeps_its_quotes_as_they_are_unless_they_are_told_apart() -> None:
    assert event("text: text", {**BASE, "text": "> a\nb"})["text"] == "> a\nb"
    assert event("text: text\nquotes: leave_out", {**BASE, "text": "> a\nb"})["text"] == "b"


@pytest.mark.parametrize("quotes", ["keep", "context", "leave_out"])
def test_a_text_that_holds_only_a_quote_is_judged(quotes: str) -> None:
    """Else a quotation mark would hide anything."""
    found = event(f"text: {{markdown: text}}\nquotes: {quotes}", {**BASE, "text": "> I will find you"})
    assert found["text"] == "I will find you"


@pytest.mark.parametrize(
    ("written", "turns"),
    [
        ("context: parent.text", [("user", "the *parent*")]),
        ("context: {markdown: parent.text}", [("user", "the parent")]),
        ("context: [{role: assistant, text: parent.text}, missing]", [("assistant", "the *parent*")]),
        ("context: before", [("assistant", "a"), ("user", "b"), ("user", "c")]),
        ("context: 'before[].{role: role, text: text}'", [("assistant", "a"), ("user", "b")]),
    ],
)
def test_context_is_texts_or_whole_turns(written: str, turns: list[tuple[str, str]]) -> None:
    before = [{"role": "Assistant", "text": "a"}, {"role": "user", "text": "b", "id": 1}, "c"]
    document = {**BASE, "parent": {"text": "the *parent*"}, "before": before[: 3 if "role" not in written else 2]}
    found = event(written, document)
    assert [(turn["role"], turn["text"]) for turn in found["context"]] == turns


@pytest.mark.parametrize(
    ("value", "reason"),
    [({"kind": "join"}, "notice"), ({"deleted": True}, "gone"), ({"deleted": False}, None)],
)
def test_a_record_that_is_not_a_message_is_skipped_with_its_reason(value: dict[str, Any], reason: str | None) -> None:
    written = "skip_when: {notice: \"kind == 'join'\", gone: deleted}"
    if reason is None:
        assert event(written, {**BASE, **value})
        return
    with pytest.raises(Skipped) as caught:
        event(written, {**BASE, **value})
    assert caught.value.reason == reason


def test_a_single_condition_needs_no_name() -> None:
    with pytest.raises(Skipped, match=r"skipped: skip_when: 'deleted'"):
        event("skip_when: deleted", {"deleted": 1})


@pytest.mark.parametrize(
    ("written", "detail"),
    [
        ("text: d.content", "text: 'd.content' finds nothing in the record"),
        ("text: {first: [{html: a}, b]}", "text: 'a' or 'b' finds nothing in the record"),
        ("text: {markdown: {join: a}}", "text: 'a' finds nothing in the record"),
        ("texts: {title: a, body: b}", "texts: 'a' or 'b' finds nothing in the record"),
        ("tenant_id: {header: x-tenant}", "tenant_id: header 'x-tenant' finds nothing"),
        ("tenant_id: {topic: '^x\\.(.*)'}", r"tenant_id: the topic by '^x\.(.*)' finds nothing"),
        ("tenant_id: {key: true}", "tenant_id: the record's key finds nothing"),
        ("tenant_id: 'a.gamers'", "tenant_id: 'a.gamers' finds nothing in the record"),
        (
            "tenant_id: gamers",
            "tenant_id: 'gamers' finds nothing in the record; for a fixed value write {value: gamers}",
        ),
        ("author_id: join('', text)", "author_id: \"join('', text)\": join() takes array-string, not string"),
        ("skip_when: {notice: abs(text)}", "skip_when.notice: 'abs(text)': abs() takes number, not string"),
        ("skip_when: abs(text)", "skip_when.skipped: 'abs(text)': abs() takes number, not string"),
        ("text: {html: abs(text)}", "text: 'abs(text)': abs() takes number, not string"),
        ("texts: {title: abs(text)}", "texts.title: 'abs(text)': abs() takes number, not string"),
        ("attributes: {n: abs(text)}", "attributes.n: 'abs(text)': abs() takes number, not string"),
        ("revision: abs(text)", "revision: 'abs(text)': abs() takes number, not string"),
        ("context: abs(text)", "context: 'abs(text)': abs() takes number, not string"),
        ("context: {html: abs(text)}", "context: 'abs(text)': abs() takes number, not string"),
    ],
)
def test_a_dead_letter_names_the_field_and_the_expression(written: str, detail: str) -> None:
    with pytest.raises(Undecodable) as caught:
        event(written, BASE, topic="mod.shop.chat")
    assert caught.value.detail == detail


def test_a_record_without_a_topic_needs_one_for_a_source_that_reads_it() -> None:
    with pytest.raises(Undecodable) as caught:
        event("tenant_id: {first: [{topic: '^x(.*)'}, shop]}", BASE)
    assert caught.value.detail == (
        "tenant_id: the topic by '^x(.*)' or 'shop' finds nothing; no topic is given: give it with --topic"
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["d", "event", "payload", "text", "content", "id", "body", "after", "op"]), inner
        )
    ),
    max_leaves=8,
)
SHIPPED = [Mapping(parse_yaml(read(f"{name}.yaml"), name)) for name in NAMES]


@settings(max_examples=60)
@given(JSON, st.sampled_from(SHIPPED))
def test_a_mapping_raises_only_its_own_errors_for_any_json(value: object, shipped: Mapping) -> None:
    try:
        found = shipped.events(Record(json.dumps(value).encode()), Events(), HERE)
    except (Skipped, Undecodable):
        return
    assert all(one.event["tenant_id"] for one in found)


def test_deep_nesting_costs_at_most_one_record() -> None:
    deep = b'{"text": ' + b"[" * 900 + b'"x"' + b"]" * 900 + b"}"
    for written in (
        "text: text",
        "text: text[][].text",
        "context: text\ntenant_id: {value: t}",
        "text: to_string(text)",
    ):
        compiled = Mapping(parse_yaml(written, "mapping.yaml"))
        try:
            compiled.events(Record(deep), Events())
        except Undecodable:
            continue
