"""Two events have the same key exactly if they are the same event, and two contents if one assessment fits both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import EventDict
from workers.core.keys import Keys

BODY: EventDict = {"event_id": "e", "tenant_id": "acme", "surface": "chat", "text": "hello"}


def keys_of(body: EventDict, *, is_shared: bool = False, keys: Keys | None = None) -> tuple[bytes, bytes]:
    return (keys or Keys("n", secret="s", fingerprint="f")).of(body, is_shared=is_shared)


# Few letters, and the separators of JSON: so fields that are equal after joining occur soon.
names = st.text('a",|', min_size=1, max_size=3)
turns = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "text": st.text('a",|', max_size=2)})
bodies = st.fixed_dictionaries(
    {"event_id": names, "tenant_id": names, "surface": st.sampled_from(["chat", "comment"]), "text": names},
    optional={
        "role": st.sampled_from(["user", "assistant"]),
        "context": st.lists(turns, max_size=2),
        "language": st.none() | names,
        "author_id": names,
        "created_at": st.just("2026-11-24T02:00:00Z"),
        "attributes": st.dictionaries(names, names, max_size=1),
    },
)


def content(body: EventDict, is_shared: bool) -> tuple[object, ...]:
    """The fields on which an assessment depends, and the tenant for which it holds."""
    owner = None if is_shared else body["tenant_id"]
    return owner, body.get("role", "user"), body["text"], tuple(map(str, body.get("context") or ()))


def event(body: EventDict, is_shared: bool) -> tuple[object, ...]:
    own = (body["tenant_id"], body["event_id"], body["surface"], body.get("language"))
    return content(body, is_shared), own


def changed_in(fields: set[str], body: Mapping[str, object], other: Mapping[str, object]) -> EventDict:
    kept = {field: value for field, value in body.items() if field not in fields}
    return cast(EventDict, kept | {field: value for field, value in other.items() if field in fields})


fields = st.sets(st.sampled_from([*EventDict.__annotations__]), max_size=2)
pairs = st.tuples(bodies, bodies, fields).map(lambda drawn: (drawn[0], changed_in(drawn[2], drawn[0], drawn[1])))


@given(pairs, st.booleans(), st.booleans())
def test_keys_are_equal_exactly_when_content_and_event_are(
    pair: tuple[EventDict, EventDict], one_is_shared: bool, other_is_shared: bool
) -> None:
    one, other = pair
    event_key, content_key = keys_of(one, is_shared=one_is_shared)
    other_event_key, other_content_key = keys_of(other, is_shared=other_is_shared)
    assert (content_key == other_content_key) == (content(one, one_is_shared) == content(other, other_is_shared))
    assert (event_key == other_event_key) == (event(one, one_is_shared) == event(other, other_is_shared))


@pytest.mark.parametrize(
    ("changes", "is_same_content", "is_same_event"),
    [
        ({"author_id": "x", "created_at": "2026-11-24T02:00:00Z", "attributes": {"a": "b"}}, True, True),
        ({"role": "user", "context": [], "language": None}, True, True),
        ({"event_id": "other"}, True, False),
        ({"surface": "comment"}, True, False),
        ({"language": "en"}, True, False),
        ({"tenant_id": "other"}, False, False),
        ({"text": "hello "}, False, False),
        ({"role": "assistant"}, False, False),
        ({"context": [{"role": "user", "text": "hi"}]}, False, False),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_which_fields_make_another_content_and_which_another_event(
    changes: dict[str, object], is_same_content: bool, is_same_event: bool
) -> None:
    event_key, content_key = keys_of(BODY)
    changed_event_key, changed_content_key = keys_of(cast(EventDict, {**BODY, **changes}))
    assert (content_key == changed_content_key) == is_same_content
    assert (event_key == changed_event_key) == is_same_event


def test_tenants_that_share_have_one_key_for_equal_content_and_never_for_an_event() -> None:
    other = cast(EventDict, {**BODY, "tenant_id": "other"})
    event_key, content_key = keys_of(BODY, is_shared=True)
    other_event_key, other_content_key = keys_of(other, is_shared=True)
    assert content_key == other_content_key
    assert event_key != other_event_key
    assert content_key not in (keys_of(BODY)[1], keys_of(other)[1])


def test_no_tenant_name_makes_two_contents_equal() -> None:
    """Any character of a name may also be in a text."""
    keys = [
        keys_of(cast(EventDict, {**BODY, "tenant_id": tenant, "text": text}))[1]
        for tenant, text in [("a", "xx|user|5|hello"), ("a|user|15|xx", "hello"), ("ax", "hello"), ("a", "xhello")]
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("namespace", "secret", "fingerprint"), [("m", "s", "f"), ("n", "", "f"), ("n", "t" * 100, "f"), ("n", "s", "g")]
)
def test_another_namespace_secret_or_guard_gives_other_keys(namespace: str, secret: str, fingerprint: str) -> None:
    other = Keys(namespace, secret=secret, fingerprint=fingerprint)
    assert not set(keys_of(BODY, keys=other)) & set(keys_of(BODY))


def test_the_keys_are_the_same_in_every_release() -> None:
    """With other keys, an update would lose all stored events."""
    assert keys_of(BODY) == (
        b"n:event:{0f}" + bytes.fromhex("72a673f7d840d7a50106a5fcf8c2440c"),
        b"n:content:{0f}" + bytes.fromhex("4f302c35590a4a39a0d8bbe7d14db41f"),
    )
