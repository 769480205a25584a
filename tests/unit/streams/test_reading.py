"""Stream events are read generously; what is none becomes a dead letter with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.stream import MAX_STREAM_TEXT_CHARS, MAX_STREAM_TOKENS
from tests.unit.streams.given import ORIGIN, document, read
from workers.core.records import Record, Source
from workers.errors import Skipped, Undecodable
from workers.settings import Events
from workers.streams.reading import Item, Reading

FIXTURES = sorted((Path(__file__).parents[2] / "fixtures/contracts/stream_event").glob("*.json"))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.name)
def test_a_worker_reads_every_published_stream_event(path: Path) -> None:
    value = json.loads(path.read_text())
    found = read(path.read_bytes())
    content = value["text"] if value["token_ids"] is None else value["token_ids"]
    assert (found.kind, found.stream_id, found.tenant_id, found.seq) == (
        value["kind"],
        value["stream_id"],
        value["tenant_id"],
        value["seq"],
    )
    assert (found.content, found.created_at) == (content, value["created_at"])


@pytest.mark.parametrize(
    ("value", "stream_id", "seq", "content"),
    [
        (document("delta", 3, "x", stream_id=17), "17", 3, "x"),
        (document("delta", 3, "", unknown={"a": 1}), "s1", 3, ""),
        (document("user", 3, "x", seq="3", token_ids=None), "s1", 3, "x"),
        (document("delta", 3, "x", seq=3.0), "s1", 3, "x"),
        (document("close", 3, text="", token_ids=[]), "s1", 3, None),
        (b'{"kind":"delta","stream_id":"s1","tenant_id":"a","seq":0,"text":"\\ud83d"}', "s1", 0, "\ud83d"),
        (b'\xef\xbb\xbf{"kind":"delta","stream_id":"s1","tenant_id":"a","seq":0,"text":"x","n":NaN}', "s1", 0, "x"),
    ],
)
def test_a_record_that_can_be_understood_is_read(
    value: dict[str, Any] | bytes, stream_id: str, seq: int, content: str | None
) -> None:
    found = read(value)
    assert (found.stream_id, found.seq, found.content) == (stream_id, seq, content)


def test_token_ids_are_kept_as_they_are_also_those_that_the_guard_will_refuse() -> None:
    assert list(read(document("delta", 1, [5, 0, -1, 48_000])).content or ()) == [5, 0, -1, 48_000]


@pytest.mark.parametrize(
    "content", ["x" * (MAX_STREAM_TEXT_CHARS + 1), [1] * (MAX_STREAM_TOKENS + 1)], ids=["text", "ids"]
)
def test_a_content_that_is_too_long_is_an_event_without_its_content(content: Any) -> None:
    """As a dead letter, nobody would learn that a part of the answer was not judged."""
    found = read(document("delta", 1, content))
    assert (found.is_too_long, found.content) == (True, None)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"not json", "not_json"),
        (b"\xff", "not_utf8"),
        (b"[]", "wrong_type"),
        (document("delta", 1, "x", kind="chunk"), "invalid_field"),
        (document("delta", 1, "x", kind=None), "missing_field"),
        (document("delta", 1, "x", stream_id=""), "missing_field"),
        (document("delta", 1, "x", stream_id="x" * 257), "invalid_field"),
        (document("delta", 1, "x", tenant_id=["a"]), "invalid_field"),
        (document("delta", 1, "x", seq=-1), "invalid_field"),
        (document("delta", 1, "x", seq=1.5), "invalid_field"),
        (document("delta", 1, "x", seq=True), "invalid_field"),
        (document("delta", 1, "x", seq=2**53), "invalid_field"),
        (document("delta", 1, "x", seq=None), "missing_field"),
        (document("delta", 1), "missing_field"),
        (document("delta", 1, "x", token_ids=[1]), "invalid_field"),
        (document("delta", 1, text={"a": 1}), "invalid_field"),
        (document("delta", 1, token_ids=["1"]), "invalid_field"),
        (document("delta", 1, token_ids=[True]), "invalid_field"),
        (document("delta", 1, token_ids=[2**40]), "invalid_field"),
        (document("delta", 1, token_ids={"a": 1}), "invalid_field"),
        (document("open", 1, "a text that would not be judged"), "invalid_field"),
        (document("close", 1, [1]), "invalid_field"),
    ],
)
def test_a_record_that_is_no_stream_event_has_a_reason_that_repeats_nothing_of_it(
    value: dict[str, Any] | bytes, reason: str
) -> None:
    with pytest.raises(Undecodable) as refused:
        read(value)
    assert refused.value.reason == reason
    assert "would not be judged" not in refused.value.detail


def test_a_tombstone_is_skipped() -> None:
    with pytest.raises(Skipped):
        Reading(Events())(Record(None, b"k"), Source(ORIGIN, 1, 0))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
_FIELDS = st.sampled_from(["kind", "stream_id", "tenant_id", "seq", "text", "token_ids", "created_at"])


@given(st.dictionaries(_FIELDS, _JSON), st.sampled_from(["open", "user", "delta", "close"]))
def test_any_value_in_any_field_is_read_or_refused(changes: dict[str, Any], kind: str) -> None:
    found: Item | None = None
    reason = ""
    try:
        found = read({**document(kind, 0), **changes})
    except Undecodable as refused:
        reason = refused.reason
    assert found is not None or reason in ("invalid_field", "missing_field")
    if found is not None:
        assert (found.content is None) == (found.kind in ("open", "close") or found.is_too_long)
