"""Review items and appeals as Coop wants them: a stand-in checks them by Coop's published format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.taxonomy import Category
from tests.coop import API_KEY
from tests.coop import Coop as StandIn
from workers.actions.coop import Coop, appeal, is_new_appeal, report
from workers.actions.delivery import Delivery
from workers.actions.formats import format_of
from workers.actions.reading import Reading, inputs_of
from workers.actions.secrets import Secrets
from workers.core.records import Finished, Record, Source, TopicPartition
from workers.settings import Topics
from workers.settings.action_sections import Endpoint, Kind
from workers.settings.coop_sections import CoopItems

AT_MS = 1_764_336_000_000
ROOT, NEWER = "a" * 32, "b" * 32
VERDICT: dict[str, Any] = {
    "verdict_id": ROOT,
    "event_id": "m-1",
    "tenant_id": "arcade",
    "surface": "chat",
    "author_id": "u-1",
    "language": "en",
    "role": "user",
    "assessment": {"severity": "Unsafe", "categories": ["Unethical Acts", "Violent"]},
    "decision": "review",
    "reasons": ["unsafe:Violent"],
    "policy": {"id": "arcade", "version": 3, "digest": "d"},
    "created_at": "2026-11-28T13:00:00Z",
    "attributes": {"room": "lobby", "level": 7},
}
CONTENT = {"text": 'say "hi" \u202e', "context": [{"role": "user", "text": "before"}, {"role": "user", "text": ""}]}
ITEM = {**VERDICT, **CONTENT}
STATE: dict[str, Any] = {
    "verdict_id": ROOT,
    "status": "appealed",
    "current": NEWER,
    "current_decision": "block",
    "waiting_since": AT_MS,
    "appeal": "it was a joke",
    "history": [{"action": "published"}, {"action": "appealed"}],
    "verdict": VERDICT,
    "content": {**CONTENT, "attributes": VERDICT["attributes"]},
}
ITEMS = CoopItems(
    item_type="message-type",
    user_type="user-type",
    fields={"text": "content", "created_at": "sent", "author": "author", "attributes.room": "room"},
    policies={Category.VIOLENT: "policy-violence"},
    actions={"block": "action-block"},
)

ENDPOINT = {
    "name": "coop",
    "url": "https://coop.example/api/v1",
    "format": "coop",
    "kinds": ["review", "appeal"],
    "coop": ITEMS.model_dump(),
}


@pytest.fixture
def coop(tmp_path: Path) -> Coop:
    (tmp_path / "key").write_text(API_KEY)
    endpoint = Endpoint.model_validate({**ENDPOINT, "header_files": {"X-API-KEY": str(tmp_path / "key")}})
    made = format_of(endpoint, Secrets(endpoint))
    assert isinstance(made, Coop)
    return made


def send(coop: Coop, stand_in: StandIn, kind: Kind, document: dict[str, Any]) -> tuple[int, Any]:
    body = coop.body(kind, document, b"", AT_MS)
    assert body is not None
    delivery = Delivery(Source(TopicPartition("moderation.review", 0), 1, 0), b"k", ROOT, kind, "arcade", body, AT_MS)
    call = coop.call([delivery], 1.0)
    return stand_in.answer(f"/api/v1/{call.path}", call.headers, call.body)


def test_a_review_item_is_a_report_that_coop_accepts(coop: Coop) -> None:
    stand_in = StandIn()
    assert send(coop, stand_in, "review", ITEM)[0] == 201
    ((path, sent),) = stand_in.received
    assert path == "/api/v1/report"
    assert sent["reportedItem"] == {
        "id": ROOT,
        "typeId": "message-type",
        "data": {
            "content": CONTENT["text"],
            "sent": "2026-11-28T13:00:00Z",
            "author": {"id": "u-1", "typeId": "user-type"},
            "room": "lobby",
        },
    }
    assert sent["reportedForReason"] == {
        "reason": "unsafe:Violent (policy arcade, version 3)",
        "policyId": "policy-violence",
    }
    # Coop takes no item without its required fields: an earlier turn without text is left out.
    assert [one["data"] for one in sent["reportedItemThread"]] == [{"content": "before"}]


def test_an_appeal_names_the_verdict_that_is_appealed(coop: Coop) -> None:
    stand_in = StandIn()
    assert send(coop, stand_in, "appeal", STATE)[0] == 204
    ((path, sent),) = stand_in.received
    assert path == "/api/v1/report/appeal"
    assert sent["appealId"] == f"{ROOT}.{NEWER}"
    assert sent["actionsTaken"] == ["action-block"]
    assert sent["appealReason"] == "it was a joke"
    assert sent["actionedItem"]["id"] == ROOT


def test_each_appeal_is_sent_once_whatever_happens_to_the_item_later(coop: Coop) -> None:
    later = {**STATE, "history": [*STATE["history"], {"action": "leased"}]}
    decided = {**STATE, "status": "decided"}
    assert is_new_appeal(STATE)
    assert [coop.body("appeal", state, b"", AT_MS) for state in (later, decided, {**STATE, "history": []})] == [
        None
    ] * 3


def test_an_appeal_comes_from_the_state_of_its_item_and_each_appeal_has_its_own_id(coop: Coop) -> None:
    topics = Topics()
    endpoint = Endpoint.model_validate({**ENDPOINT, "headers": {"X-API-KEY": "k"}, "tenants": ["arcade"]})
    reading = Reading(endpoint, topics, coop)
    assert set(inputs_of(endpoint, topics)) == {topics.review, topics.review_state}
    source = Source(TopicPartition(topics.review_state, 0), 1, 0, AT_MS)

    def read(state: dict[str, Any] | None) -> list[Delivery] | Finished:
        return reading(Record(None if state is None else json.dumps(state).encode(), b"k"), source)

    appealed = {**STATE, "tenant_id": "arcade"}
    (delivery,) = as_list(read(appealed))
    assert (delivery.kind, delivery.id) == ("appeal", f"{NEWER}.appeal")
    (second,) = as_list(read({**appealed, "current": "c" * 32}))
    assert second.id != delivery.id
    for skipped in (None, {**appealed, "status": "decided"}, {**appealed, "tenant_id": "other"}):
        assert isinstance(read(skipped), Finished)


def as_list(read: list[Delivery] | Finished) -> list[Delivery]:
    assert isinstance(read, list)
    return read


def test_verdicts_and_signals_are_nothing_for_coop(coop: Coop) -> None:
    assert coop.body("verdict", VERDICT, b"", AT_MS) is None
    assert coop.body("signal", {}, b"", AT_MS) is None


def test_an_event_that_could_not_be_judged_is_reported_too() -> None:
    bare = {
        **ITEM,
        "assessment": None,
        "author_id": None,
        "created_at": None,
        "reasons": ["unavailable"],
        "context": [],
    }
    sent = report(bare, ITEMS, AT_MS)
    assert set(sent["reportedItem"]["data"]) == {"content", "room"}
    assert "policyId" not in sent["reportedForReason"]
    assert "reportedItemThread" not in sent


def test_the_same_item_always_gives_the_same_bytes(coop: Coop) -> None:
    assert coop.body("review", ITEM, b"", AT_MS) == coop.body("review", json.loads(json.dumps(ITEM)), b"", AT_MS)
    assert appeal(STATE, ITEMS) == appeal(STATE, ITEMS)


def test_an_appeal_without_content_is_an_error_and_not_an_empty_text() -> None:
    with pytest.raises(TypeError):
        appeal({**STATE, "content": None}, ITEMS)


@pytest.mark.parametrize("missing", ["reporter", "reportedAt", "reportedItem"])
def test_the_stand_in_refuses_what_coop_refuses(missing: str) -> None:
    sent = report(ITEM, ITEMS, AT_MS)
    del sent[missing]
    headers = {"X-API-KEY": API_KEY, "Content-Type": "application/json"}
    assert StandIn().answer("/api/v1/report", headers, json.dumps(sent).encode())[0] == 400
    assert StandIn().answer("/api/v1/report", {}, b"{}")[0] == 401
