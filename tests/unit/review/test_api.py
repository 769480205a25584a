"""The HTTP API: its contract, its roles, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from tests.page.local import LocalDesk, by, token_of
from tests.reviewing import review_item, verdict_id
from workers.core.records import Output
from workers.review.item import Step
from workers.review.openapi import document as published_api

MAX_BODY_BYTES = 4_000_000
"""More than the tests of the contract send in a request: 413 would hide how the API answers a broken one."""
LEASE_S = 120
WHO = ("ana", "bob", "cem", "sue", "aud", "coop")


@pytest.fixture
def desk(tmp_path: Path) -> LocalDesk:
    return LocalDesk(tmp_path, undo_s=0, lease_s=LEASE_S, answer_s=3, max_body_bytes=MAX_BODY_BYTES)


@pytest.fixture
def client(desk: LocalDesk) -> Iterator[TestClient]:
    with TestClient(desk.app(), raise_server_exceptions=False) as client:
        yield client


def add(desk: LocalDesk, *numbers: int, **changes: Any) -> None:
    for number in numbers:
        desk.add(number, **changes)


def published(desk: LocalDesk) -> list[Output]:
    return [output for output in desk.outputs if output.topic == desk.topics.verdicts]


OPERATIONS = [
    (method.upper(), path, mode)
    for path, methods in published_api()["paths"].items()
    for method, operation in methods.items()
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if mode is GenerationMode.POSITIVE or "parameters" in operation or "requestBody" in operation
]


@pytest.mark.parametrize(("method", "path", "mode"), OPERATIONS)
def test_every_answer_keeps_the_published_contract(
    desk: LocalDesk, method: str, path: str, mode: GenerationMode
) -> None:
    """Requests that keep the contract, and requests that break it, as a senior person sends them."""
    add(desk, *range(20))
    operation = schemathesis.openapi.from_asgi("/openapi.json", desk.app())[path][method]

    not_here = [schemathesis.checks.ignored_auth]
    if path == "/v1/appeals":
        # The contract of `verdict` is that of the topic, which the document of the API does not repeat.
        not_here.append(schemathesis.checks.positive_data_acceptance)

    @given(operation.as_strategy(generation_mode=mode))
    @settings(max_examples=6, database=None, suppress_health_check=list(HealthCheck))
    def check(case: Any) -> None:
        case.call_and_validate(headers=by("sue"), excluded_checks=not_here)

    check()


def test_an_item_is_taken_and_decided(desk: LocalDesk, client: TestClient) -> None:
    add(desk, 0, 1)
    item = client.post("/v1/next", json={}, headers=by("ana")).json()
    assert item["content"]["text"].startswith("message ")
    decision = {"decision": "block", "note": "A threat.", "severity": "Unsafe", "categories": ["Violent"]}
    url = f"/v1/items/{item['verdict_id']}/decide"
    answers = [client.post(url, json=decision, headers=by("ana", "click-1")) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["current"] == answers[1].json()["current"] != item["verdict_id"]
    assert [output.key for output in published(desk)] == [b"room"]
    late = client.post(url, json={"decision": "allow"}, headers=by("bob"))
    assert (late.status_code, late.json()["by"]) == (409, "ana")
    assert client.get(f"/v1/items/{answers[0].json()['current']}", headers=by("bob")).status_code == 200


def test_next_with_the_same_key_gives_the_same_item(desk: LocalDesk, client: TestClient) -> None:
    add(desk, 0, 1, 2)
    first, again, other = (
        client.post("/v1/next", json={}, headers=by("ana", key)).json()["verdict_id"] for key in ("a", "a", "b")
    )
    assert first == again != other
    held = client.get("/v1/leases", headers=by("ana")).json()["items"]
    assert {item["verdict_id"] for item in held} == {first, other}


def test_no_item_is_an_answer_without_a_body(desk: LocalDesk, client: TestClient) -> None:
    assert client.post("/v1/next", json={}, headers=by("ana")).status_code == 204
    add(desk, 0)
    assert client.post("/v1/next", json={"languages": ["de"]}, headers=by("ana")).status_code == 204
    assert client.post("/v1/next", json={"tenants": ["other"]}, headers=by("ana")).status_code == 204
    assert client.post("/v1/next", json={}, headers=by("cem")).status_code == 204
    assert client.post("/v1/next", json={}, headers=by("ana")).status_code == 200


@pytest.mark.parametrize(
    ("name", "path", "body", "status"),
    [
        ("aud", "/v1/next", {}, 403),
        ("coop", "/v1/next", {}, 403),
        ("aud", "/v1/items/{}/decide", {"decision": "allow"}, 403),
        ("coop", "/v1/items/{}/decide", {"decision": "allow"}, 403),
        ("ana", "/v1/items/{}/decide", {"decision": "allow", "person": "bob"}, 403),
        ("coop", "/v1/items/{}/decide", {"decision": "allow", "person": "kim, ana"}, 422),
        ("coop", "/v1/items/{}/decide", {"decision": "allow", "person": "kim\n"}, 422),
        ("ana", "/v1/items/{}/reopen", {}, 403),
        ("ana", "/v1/appeals", {"verdict_id": verdict_id(0), "reason": "r"}, 403),
        ("cem", "/v1/items/{}/decide", {"decision": "allow"}, 404),
        ("cem", "/v1/items/{}/heartbeat", None, 404),
        ("bob", "/v1/items/{}/heartbeat", None, 409),
        ("bob", "/v1/items/{}/undo", None, 409),
        ("bob", "/v1/items/{}/skip", None, 409),
        ("sue", "/v1/items/" + "f" * 32 + "/decide", {"decision": "allow"}, 404),
        ("coop", "/v1/appeals", {"verdict_id": "f" * 32, "reason": "r"}, 404),
        ("ana", "/v1/items/{}/decide", {"decision": "perhaps"}, 422),
        ("ana", "/v1/items/{}/decide", {"decision": "allow", "severity": "Bad"}, 422),
        ("ana", "/v1/items/{}/decide", {"decision": "allow", "note": 1}, 422),
        ("ana", "/v1/items/nothing/decide", {"decision": "allow"}, 422),
    ],
)
def test_what_is_not_permitted_is_refused_with_a_sentence(
    desk: LocalDesk, client: TestClient, name: str, path: str, body: object, status: int
) -> None:
    add(desk, 0)
    answer = client.post(path.format(verdict_id(0)), json=body, headers=by(name))
    assert (answer.status_code, published(desk)) == (status, [])
    assert len(answer.json()["detail"]) > 10


def test_a_request_without_a_valid_token_is_refused(desk: LocalDesk, client: TestClient) -> None:
    wrong: list[dict[str, str]] = [{}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {token_of('ana')}"}]
    for headers in wrong:
        answer = client.get("/v1/queues", headers=headers)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_a_body_that_is_broken_or_too_large_is_refused(desk: LocalDesk, client: TestClient) -> None:
    headers = {**by("coop"), "Content-Type": "application/json"}
    assert client.post("/v1/appeals", content=b"{", headers=headers).status_code == 400
    large = json.dumps({"verdict_id": verdict_id(0), "reason": "r", "text": "x" * MAX_BODY_BYTES}).encode()
    assert client.post("/v1/appeals", content=large, headers=headers).status_code == 413
    assert client.post("/v1/appeals", content=iter([large[:100], large[100:]]), headers=headers).status_code == 413


def test_next_and_reopen_need_no_body_and_others_say_how_to_send_it(desk: LocalDesk, client: TestClient) -> None:
    add(desk, 0)
    assert client.post("/v1/next", headers=by("ana")).status_code == 200
    url = f"/v1/items/{verdict_id(0)}/decide"
    wanted = json.dumps({"decision": "block"})
    for headers in ({"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}, {}):
        answer = client.post(url, content=wanted, headers={**by("ana"), **headers})
        assert answer.status_code == 422
        assert "with the header `Content-Type: application/json`" in answer.json()["detail"]
    assert client.post(url, headers=by("ana")).json()["detail"].startswith("send a JSON object as the body")
    assert client.post(url, json={"decision": "block"}, headers=by("ana")).status_code == 200
    assert client.post(f"/v1/items/{verdict_id(0)}/reopen", headers=by("sue")).json()["status"] == "reopened"


def test_a_refusal_names_the_person_who_was_first_also_to_a_heartbeat(desk: LocalDesk, client: TestClient) -> None:
    add(desk, 0)
    url = f"/v1/items/{verdict_id(0)}"
    client.post(f"{url}/lease", headers=by("ana"))
    desk.ahead_ms = 1_000 * LEASE_S
    for name in ("bob", "sue"):
        client.post(f"{url}/lease", headers=by(name))
        client.post(f"{url}/decide", json={"decision": "block"}, headers=by("bob"))
    late = client.post(f"{url}/heartbeat", headers=by("ana")).json()
    assert (late["by"], late["detail"]) == ("bob", "bob was first and has decided block")
    own = client.post(f"{url}/decide", json={"decision": "allow"}, headers=by("bob")).json()
    assert (own["by"], own["detail"]) == ("bob", "bob has decided already: block")


def test_a_token_limited_to_a_language_shows_items_without_one_and_next_can_leave_them_out(
    desk: LocalDesk, client: TestClient
) -> None:
    desk.add(0, tenant_id="other", language=None)
    (queue,) = client.get("/v1/queues", headers=by("cem")).json()["queues"]
    assert (queue["language"], queue["waiting"]) == ("und", 1)
    assert client.post("/v1/next", json={"languages": ["de"]}, headers=by("cem")).status_code == 204
    assert client.post("/v1/next", json={"languages": ["und"]}, headers=by("cem")).status_code == 200


def test_content_is_for_those_who_review_and_each_view_is_audited(desk: LocalDesk, client: TestClient) -> None:
    add(desk, 0)
    url = f"/v1/items/{verdict_id(0)}"
    seen = {name: client.get(url, headers=by(name)) for name in WHO}
    assert {name: answer.status_code for name, answer in seen.items()} == {**dict.fromkeys(WHO, 200), "cem": 404}
    with_content = {name for name, answer in seen.items() if answer.json().get("content") is not None}
    assert with_content == {"ana", "bob", "sue"}
    assert all("message 0" not in answer.text for name, answer in seen.items() if name not in with_content)
    audit = [json.loads(output.value or b"") for output in desk.outputs if output.topic == desk.topics.audit]
    assert sorted(record["by"] for record in audit if record["action"] == "viewed") == ["ana", "bob", "sue"]


def test_a_system_passes_on_the_decision_of_its_person(desk: LocalDesk, client: TestClient) -> None:
    add(desk, 0)
    url = f"/v1/items/{verdict_id(0)}/decide"
    unnamed = client.post(url, json={"decision": "block"}, headers=by("coop"))
    assert (unnamed.status_code, unnamed.json()["detail"][:35]) == (403, "person: name the person who decided")
    body = {"decision": "block", "person": "kim"}
    answer = client.post(url, json=body, headers=by("coop"))
    assert (answer.status_code, answer.json()["content"]) == (200, None)
    (output,) = published(desk)
    assert json.loads(output.value or b"")["decided_by"] == "coop:kim"


def test_a_repeated_request_gives_content_only_while_the_lease_is_valid(desk: LocalDesk, client: TestClient) -> None:
    add(desk, 0)
    url = f"/v1/items/{verdict_id(0)}"
    first, again = (client.post(f"{url}/lease", headers=by("ana", "once")).json() for _ in range(2))
    assert first["content"] is not None
    assert again["content"] == first["content"]
    client.post(f"{url}/release", headers=by("ana"))
    late = client.post(f"{url}/lease", headers=by("ana", "once"))
    assert (late.status_code, late.json()["lease"], late.json()["content"]) == (200, None, None)


def test_the_words_of_authors_and_notes_are_for_those_who_review(desk: LocalDesk, client: TestClient) -> None:
    add(desk, 0)
    url = f"/v1/items/{verdict_id(0)}"
    client.post(f"{url}/decide", json={"decision": "block", "note": "The note."}, headers=by("ana"))
    client.post("/v1/appeals", json={"verdict_id": verdict_id(0), "reason": "I, Jane."}, headers=by("sue"))
    client.post(f"{url}/decide", json={"decision": "block", "note": "The note."}, headers=by("bob"))
    for name in ("ana", "aud", "coop"):
        answer = client.get(url, headers=by(name)).text
        assert ["I, Jane." in answer, "The note." in answer] == [name == "ana"] * 2


def test_an_item_that_everybody_skipped_comes_again(desk: LocalDesk, client: TestClient) -> None:
    add(desk, 0, 1)
    for _ in range(2):
        item = client.post("/v1/next", json={}, headers=by("ana")).json()["verdict_id"]
        client.post(f"/v1/items/{item}/skip", headers=by("ana"))
    assert client.post("/v1/next", json={}, headers=by("ana")).status_code == 200


def test_the_second_person_does_not_see_the_first_decision_while_it_can_be_undone(tmp_path: Path) -> None:
    desk = LocalDesk(tmp_path, four_eyes=("Violent",))
    add(desk, 0)
    url = f"/v1/items/{verdict_id(0)}"
    decision = {"decision": "block", "note": "A threat."}
    with TestClient(desk.app()) as client:
        own = client.post(f"{url}/decide", json=decision, headers=by("ana")).json()
        seen = client.get(url, headers=by("bob"))
        late = client.post(f"{url}/decide", json={"decision": "allow"}, headers=by("bob"))
    assert (own["pending"]["decision"], len(own["opinions"])) == ("block", 1)
    assert (seen.json()["pending"]["by"], seen.json()["pending"]["decision"]) == ("ana", None)
    assert late.status_code == 409
    assert not any(word in answer.text for answer in (seen, late) for word in ("block", "A threat."))


def test_a_decision_that_was_undone_needs_a_new_key_to_be_made_again(tmp_path: Path) -> None:
    desk = LocalDesk(tmp_path, four_eyes=("Violent",))  # Its decisions wait for the time to undo.
    add(desk, 0)
    client = TestClient(desk.app())
    url, headers = f"/v1/items/{verdict_id(0)}", {**by("ana"), "Idempotency-Key": "one"}
    block = {"decision": "block"}
    assert client.post(f"{url}/decide", json=block, headers=headers).json()["pending"]["decision"] == "block"
    assert client.post(f"{url}/decide", json=block, headers=headers).json()["pending"]["decision"] == "block"
    assert client.post(f"{url}/undo", headers=by("ana")).json()["pending"] is None
    again = client.post(f"{url}/decide", json=block, headers=headers)
    assert (again.status_code, "with a new key" in again.json()["detail"]) == (409, True)
    other = client.post(f"{url}/decide", json=block, headers={**headers, "Idempotency-Key": "two"})
    assert other.json()["pending"]["decision"] == "block"


def test_an_undo_concerns_only_the_last_decision(desk: LocalDesk) -> None:
    add(desk, 0)
    actions = ("decided", "escalated", "leased", "decided", "undone")
    steps = tuple(Step(at, action, "sue", "senior", str(at)) for at, action in enumerate(actions))
    item = msgspec.structs.replace(desk.desk.items[verdict_id(0)], history=steps)
    assert [item.is_undone(str(at)) for at in (0, 3)] == [False, True]


def test_an_appeal_with_the_record_of_a_verdict_opens_an_item(desk: LocalDesk, client: TestClient) -> None:
    verdict = {
        name: value for name, value in review_item(7, decision="block").items() if name not in ("text", "context")
    }
    body: dict[str, Any] = {
        "verdict_id": verdict_id(7),
        "reason": "It was a quote.",
        "verdict": verdict,
        "text": "the quote",
        "key": "room-7",
        "context": [{"role": "user", "text": "what did you read?"}],
    }
    answer = client.post("/v1/appeals", json=body, headers=by("coop"))
    assert (answer.status_code, answer.json()["status"], answer.json()["content"]) == (200, "appealed", None)
    broken = {**body, "verdict_id": verdict_id(8), "verdict": {**verdict, "verdict_id": verdict_id(8), "source": 1}}
    halves = json.dumps({**body, "verdict": {**verdict, "x": "\ud800"}}).encode()
    half = client.post("/v1/appeals", content=halves, headers={**by("coop"), "Content-Type": "application/json"})
    assert (half.status_code, "surrogate" in half.json()["detail"]) == (422, True)
    assert client.post("/v1/appeals", json={**body, "verdict": {}}, headers=by("coop")).status_code == 422
    refused = client.post("/v1/appeals", json=broken, headers=by("coop"))
    assert (refused.status_code, refused.json()["detail"][:15]) == (422, "verdict: source")
    item = client.post("/v1/next", json={}, headers=by("ana")).json()
    assert (item["appeal"], item["content"]["text"]) == ("It was a quote.", "the quote")
    client.post(f"/v1/items/{verdict_id(7)}/decide", json={"decision": "allow"}, headers=by("ana"))
    (output,) = published(desk)
    assert (output.key, json.loads(output.value or b"")["superseded_decision"]) == (b"room-7", "block")


def test_while_kafka_is_down_the_answer_is_503_and_the_item_is_not_lost(desk: LocalDesk, client: TestClient) -> None:
    add(desk, 0)
    for desk.is_down, desk.is_silent in ((True, False), (False, True)):
        answer = client.post("/v1/next", json={}, headers=by("ana", "a"))
        assert (answer.status_code, "same Idempotency-Key" in answer.json()["detail"]) == (503, True)
    desk.is_silent = False
    assert client.post("/v1/next", json={}, headers=by("bob", "b")).status_code == 200


def test_a_person_holds_a_limited_number_of_items(desk: LocalDesk, client: TestClient) -> None:
    add(desk, *range(12))
    codes = [client.post("/v1/next", json={}, headers=by("ana")).status_code for _ in range(11)]
    assert codes == [200] * 10 + [409]


def test_a_heartbeat_keeps_a_lease_that_would_be_over(desk: LocalDesk, client: TestClient) -> None:
    add(desk, 0)
    client.post("/v1/next", json={}, headers=by("ana"))
    lease_ms = LEASE_S * 1000
    desk.ahead_ms = lease_ms // 2
    assert client.post(f"/v1/items/{verdict_id(0)}/heartbeat", headers=by("ana")).status_code == 200
    desk.ahead_ms = lease_ms
    taken = client.post(f"/v1/items/{verdict_id(0)}/lease", headers=by("bob"))
    assert (taken.status_code, taken.json()["by"]) == (409, "ana")
    desk.ahead_ms = 2 * lease_ms
    assert client.post(f"/v1/items/{verdict_id(0)}/heartbeat", headers=by("ana")).status_code == 409
    assert client.post(f"/v1/items/{verdict_id(0)}/lease", headers=by("bob")).status_code == 200


def test_the_queues_are_counted_by_tenant_and_language(desk: LocalDesk, client: TestClient) -> None:
    add(desk, 0, 1)
    add(desk, 2, language="de-AT", tenant_id="other")
    client.post("/v1/next", json={"tenants": ["acme"]}, headers=by("ana"))
    queues = client.get("/v1/queues", headers=by("sue")).json()["queues"]
    found = {(one["tenant_id"], one["language"]): (one["waiting"], one["leased"], one["overdue"]) for one in queues}
    assert found == {("acme", "en"): (1, 1, 0), ("other", "de"): (1, 0, 0)}
    own = client.get("/v1/queues", headers=by("cem")).json()["queues"]
    assert [one["tenant_id"] for one in own] == ["other"]
