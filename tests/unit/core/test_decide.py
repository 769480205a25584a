from typing import Any, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.assessment import Assessment
from schemas.event import EventDict
from schemas.policy import Policy
from schemas.review import ReviewItem
from schemas.taxonomy import Category, Decision, Severity
from schemas.verdict import Verdict
from workers.core.decide import Decided, verdict, verdict_id
from workers.core.records import Event, Source, TopicPartition
from workers.policy.policy import CompiledPolicy

UNSAFE: dict[str, Any] = {"severity": "Unsafe", "categories": [], "scores": {}, "category_scores": {}}
EVENT: EventDict = {"event_id": "e1", "tenant_id": "acme", "surface": "chat", "text": "hello"}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
scores = st.floats(0, 1)
turns = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "text": texts})
events = st.fixed_dictionaries(
    {"event_id": ids, "tenant_id": ids, "surface": st.sampled_from(["chat", "comment"]), "text": ids},
    optional={
        "author_id": st.none() | ids,
        "language": st.none() | ids,
        "role": st.sampled_from(["user", "assistant"]),
        "context": st.lists(turns, max_size=3),
        "created_at": st.just("2026-11-24T02:00:00Z"),
        "attributes": st.dictionaries(ids, texts | st.lists(st.none() | st.integers(0, 9), max_size=2), max_size=3),
    },
)
severities = st.sampled_from([severity.value for severity in Severity])
severity_scores = st.fixed_dictionaries({"safe": scores, "controversial": scores, "unsafe": scores})
views = st.fixed_dictionaries({"name": texts, "severity": severities, "scores": severity_scores})
assessments = st.fixed_dictionaries(
    {
        "severity": severities,
        "categories": st.lists(st.sampled_from([category.value for category in Category]), unique=True),
        "refusal": st.none() | st.booleans(),
        "scores": severity_scores,
        "category_scores": st.dictionaries(st.sampled_from([category.value for category in Category]), scores),
        "model": st.fixed_dictionaries({"name": texts, "revision": texts, "template_hash": texts}),
        "windows": st.integers(1, 9),
        "truncated_windows": st.integers(0, 9),
        "truncated_context_tokens": st.integers(0, 9),
        "tokens": st.integers(0, 9_999),
        "views": st.lists(views, min_size=1, max_size=2),
    }
)
decisions = st.sampled_from(list(Decision))
policies = st.builds(
    Policy,
    id=ids,
    version=st.integers(0, 2**53 - 1),
    safe=decisions,
    controversial=decisions,
    unsafe=decisions,
    on_unavailable=st.sampled_from(["hold", "review", "block"]),
    rules=st.just([]),
)


RECEIVED_AT_MS = 1_764_000_000_000
SOURCE = Source(TopicPartition("moderation.chat", 3), 1, 41, RECEIVED_AT_MS - 1, RECEIVED_AT_MS)
OWN_ID = verdict_id("p", SOURCE, "e1")


def decided(body: EventDict, assessment: dict[str, Any] | None, policy: Policy) -> Decided:
    return verdict(event_of(body, assessment), CompiledPolicy(policy), 1.5)


def event_of(body: EventDict, assessment: dict[str, Any] | None = None) -> Event:
    return Event(
        SOURCE,
        b"k",
        body,
        ignored_fields=("language",),
        truncated_text_chars=7,
        verdict_id=OWN_ID,
        duplicate_of="0" * 32,
        assessment=assessment,
    )


OPTIONAL = {
    "strikes",
    "similarity",
    "supersedes",
    "superseded_decision",
    "decided_by",
    "deciders",
    "note",
    "corrected",
}
"""Most verdicts lack these fields, because each would cost bytes in every record."""


def test_a_verdict_has_the_strikes_by_which_the_policy_decided() -> None:
    """A replay with them gives the same decision."""
    policy = CompiledPolicy(
        Policy.model_validate({"id": "acme", "rules": [{"severity": "Safe", "min_strikes": 3, "decision": "block"}]})
    )
    safe = {"severity": "Safe", "categories": []}
    for strikes, decision in [(None, "allow"), (0.0, "allow"), (2.999, "allow"), (3.0, "block"), (0.1 + 0.2, "allow")]:
        event = event_of({"event_id": "e1", "tenant_id": "acme", "surface": "chat", "text": "hi"}, safe)
        event.strikes = strikes
        written = orjson.loads(verdict(event, policy, 1.5).value)
        assert (written.get("strikes"), written["decision"]) == (strikes, decision)
        replayed = policy.decide(written["assessment"], surface="chat", strikes=written.get("strikes"))
        assert replayed[0] == decision


@given(events, st.none() | assessments, policies)
def test_every_verdict_keeps_the_contract(event: EventDict, assessment: dict[str, Any] | None, policy: Policy) -> None:
    written = decided(event, assessment, policy)

    model = Verdict.model_validate_json(written.value, strict=True)

    assert orjson.loads(written.value) == model.model_dump(mode="json", exclude_unset=True)
    assert Verdict.model_fields.keys() - model.model_fields_set == OPTIONAL
    assert (model.verdict_id, model.decision) == (OWN_ID, written.decision)
    assert (model.source.topic, model.source.partition, model.source.offset) == ("moderation.chat", 3, 41)
    document = model.model_dump(mode="json")
    for field in ("event_id", "tenant_id", "surface", "author_id", "language", "created_at"):
        assert document[field] == event.get(field)
    assert document["attributes"] == event.get("attributes", {})
    assert (model.source.timestamp, model.ignored_fields) == (RECEIVED_AT_MS - 1, ["language"])
    assert model.truncated_text_chars == 7
    assert document["role"] == event.get("role", "user")
    assert document["policy"] == CompiledPolicy(policy).reference
    assert (model.duplicate_of, model.timings.received_at, model.timings.judged_ms) == ("0" * 32, RECEIVED_AT_MS, 1.5)
    assert model.assessment == (None if assessment is None else Assessment.model_validate(assessment))
    assert (written.review is not None) == (written.decision == "review")
    if written.review is not None:
        item = ReviewItem.model_validate_json(written.review, strict=True)
        assert orjson.loads(written.review) == item.model_dump(mode="json", exclude_unset=True)
        assert [(turn.role, turn.text) for turn in item.context] == [
            (turn["role"], turn["text"]) for turn in event.get("context", [])
        ]
        assert (item.text, item.attributes) == (event["text"], event.get("attributes", {}))
        assert Verdict.model_validate(item.model_dump()) == model


@given(policies)
def test_an_event_that_could_not_be_judged_is_never_allowed(policy: Policy) -> None:
    written = decided(EVENT, None, policy)
    assert written.decision == ("block" if policy.on_unavailable == "block" else "review")
    assert orjson.loads(written.value)["reasons"] == ["unavailable"]


@pytest.mark.parametrize(
    ("names", "carried"),
    [(True, {"room": "a", "guild": 7}), (False, {}), ([], {}), (["guild", "nick"], {"guild": 7})],
)
def test_a_verdict_has_the_named_attributes_and_a_review_item_has_all(
    names: bool | list[str], carried: dict[str, object]
) -> None:
    attributes = {"room": "a", "guild": 7}
    body = cast(EventDict, {**EVENT, "attributes": attributes})
    written = verdict(event_of(body), CompiledPolicy(Policy(id="x", on_unavailable="review")), 1.5, names)
    assert orjson.loads(written.value)["attributes"] == carried
    assert orjson.loads(written.review or b"")["attributes"] == attributes


@given(policies)
def test_an_event_without_text_is_allowed_and_says_so(policy: Policy) -> None:
    written = decided({**EVENT, "text": ""}, None, policy)
    model = Verdict.model_validate_json(written.value, strict=True)
    assert (model.decision, model.reasons, model.assessment) == (Decision.ALLOW, ["empty"], None)


@pytest.mark.parametrize(
    ("condition", "field", "other"),
    [
        ({"surface": "comment"}, "surface", "chat"),
        ({"role": "assistant"}, "role", "user"),
        ({"language": "de"}, "language", "en"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_policy_gets_the_fields_of_the_event(condition: dict[str, str], field: str, other: str) -> None:
    policy = Policy.model_validate({"id": "acme", "rules": [{**condition, "decision": "review"}]})
    assessment: dict[str, Any] = {"severity": "Unsafe", "categories": [], "scores": {}, "category_scores": {}}
    matching = cast(EventDict, {**EVENT, **condition})
    assert decided(matching, assessment, policy).decision == "review"
    assert decided(cast(EventDict, {**EVENT, field: other}), assessment, policy).decision == "block"


@pytest.mark.parametrize(
    ("named", "detected", "language", "source", "decision"),
    [
        (None, None, None, None, "block"),
        ("de-AT", None, "de-AT", "producer", "review"),
        (None, "de", "de", "detector", "review"),
        ("und", "de", "de", "detector", "review"),
        (None, "en", "en", "detector", "block"),
    ],
)
def test_the_policy_decides_by_a_detected_language_and_the_verdict_says_who_named_it(
    named: str | None, detected: str | None, language: str | None, source: str | None, decision: str
) -> None:
    policy = CompiledPolicy(Policy.model_validate({"id": "acme", "rules": [{"language": "de", "decision": "review"}]}))
    event = event_of(cast(EventDict, {**EVENT, "language": named}), UNSAFE)
    event.detected_language = detected
    written = verdict(event, policy, 1.5)
    document = orjson.loads(written.value)
    assert (document["language"], document["language_source"], written.decision) == (language, source, decision)


def test_an_event_without_a_role_comes_from_a_user() -> None:
    policy = Policy.model_validate({"id": "acme", "rules": [{"role": "user", "decision": "review"}]})
    assessment: dict[str, Any] = {"severity": "Unsafe", "categories": [], "scores": {}, "category_scores": {}}
    assert decided(EVENT, assessment, policy).decision == "review"


def test_the_id_of_a_position_is_the_same_in_every_release() -> None:
    """Another one would make a replay after an update look like new verdicts."""
    assert verdict_id("p", SOURCE, "e1") == "926b75a13fc49b934433ff2b97873331"


def test_the_id_is_a_function_of_the_position() -> None:
    later = Source(SOURCE.origin, SOURCE.epoch + 1, SOURCE.offset)
    assert verdict_id("p", SOURCE, "e1") == verdict_id("p", later, "e1")


parts = st.tuples(
    st.text("p|1\0é", max_size=3),
    st.text("t|1\0", max_size=3),
    st.integers(0, 11),
    st.integers(0, 111),
    st.text("e|1\0", max_size=3),
)


@given(parts, parts)
def test_different_positions_have_different_ids(
    one: tuple[str, str, int, int, str], other: tuple[str, str, int, int, str]
) -> None:
    ids = [
        verdict_id(pipeline, Source(TopicPartition(topic, partition), 1, offset), event_id)
        for pipeline, topic, partition, offset, event_id in (one, other)
    ]
    assert (ids[0] == ids[1]) == (one == other)


def test_the_text_is_not_in_the_verdict() -> None:
    event: EventDict = {**EVENT, "text": "a text to be kept private"}
    assert b"private" not in decided(event, None, Policy(id="x")).value
