"""Coop's callbacks: whose they are, and which command they become."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from msgspec.structs import replace

from schemas.review_command import ReviewRole
from schemas.taxonomy import Category
from schemas.verdict import MAX_NOTE_CHARS
from tests.coop import Coop, action_callback, appeal_callback, ignore_callback
from tests.page.local import LocalDesk
from tests.reviewing import verdict_id
from workers.errors import Misconfigured
from workers.review.coop import AUTOMATIC, Bridge, Signatures, decision_of, read
from workers.review.item import Item, raw
from workers.review.people import Person
from workers.review.queues import Reader
from workers.review.refusal import Refusal
from workers.settings.coop_sections import CoopCallbacks

ROOT, NEWER = "a" * 32, "b" * 32
SETTINGS = CoopCallbacks(
    public_key_file=Path("/run/secrets/coop.pem"),
    actions={"action-block": "block", "action-allow": "allow"},
    policies={"policy-violence": Category.VIOLENT},
)
OPEN = Item(
    verdict_id=ROOT,
    tenant_id="arcade",
    language=None,
    status="open",
    key="",
    opened_at=0,
    waiting_since=0,
    due_at=0,
    turn_at=0,
    current=ROOT,
    current_decision="review",
    verdict=raw({}),
)
APPEALED = replace(OPEN, status="appealed", appeal="why", current=NEWER, current_decision="block")


@pytest.fixture(scope="module")
def coop() -> Coop:
    return Coop()


@pytest.fixture
def signatures(coop: Coop, tmp_path: Path) -> Signatures:
    (tmp_path / "key.pem").write_bytes(coop.public_key)
    return Signatures(tmp_path / "key.pem")


def bytes_of(document: object) -> bytes:
    return json.dumps(document).encode()


def refused(status: int, function: Any, *arguments: Any) -> str:
    with pytest.raises(Refusal) as caught:
        function(*arguments)
    assert caught.value.status == status, caught.value
    return caught.value.sentence


def test_only_the_signature_of_these_bytes_by_this_key_is_accepted(coop: Coop, signatures: Signatures) -> None:
    body, headers = coop.signed(action_callback(ROOT))
    signature = headers["coop-signature"]
    signatures.check(body, signature)
    flipped = base64.b64encode(bytes([base64.b64decode(signature)[0] ^ 1]) + base64.b64decode(signature)[1:]).decode()
    foreign = Coop().signed(action_callback(ROOT))[1]["coop-signature"]
    for changed, given in (
        (body.replace(b"action-block", b"action-allow"), signature),
        (body + b" ", signature),
        (body, flipped),
        (body, foreign),
        (body, signature[:-4]),
        (body, "é not base64 !"),
        (body, ""),
        (body, None),
    ):
        refused(401, signatures.check, changed, given)


def test_a_replaced_key_counts_at_once(coop: Coop, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(Coop().public_key)
    signatures = Signatures(file)
    body, headers = coop.signed(action_callback(ROOT))
    refused(401, signatures.check, body, headers["coop-signature"])
    file.write_bytes(coop.public_key)
    signatures.check(body, headers["coop-signature"])
    file.write_bytes(b"half a key")
    refused(503, signatures.check, body, headers["coop-signature"])


def test_a_file_that_is_no_public_key_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("no key")
    for file, why in ((tmp_path / "key.pem", "is not a public key"), (tmp_path / "none.pem", "cannot read")):
        with pytest.raises(Misconfigured, match=why):
            Signatures(file)


def signed(coop: Coop, document: object) -> tuple[bytes, str]:
    body, headers = coop.signed(document)
    return body, headers["coop-signature"]


@pytest.fixture
def desk(coop: Coop, tmp_path: Path) -> LocalDesk:
    (tmp_path / "coop.pem").write_bytes(coop.public_key)
    settings = SETTINGS.model_copy(update={"public_key_file": tmp_path / "coop.pem", "tenants": ["acme"]})
    desk = LocalDesk(tmp_path, undo_s=0, coop=settings)
    desk.add(1)
    return desk


def bridge_of(desk: LocalDesk) -> Bridge:
    return Bridge(desk.settings.coop, desk.service)


async def test_an_action_becomes_the_superseding_verdict_of_a_person_in_coop(coop: Coop, desk: LocalDesk) -> None:
    document = action_callback(verdict_id(1), decisionReason="it is a threat")
    item = await bridge_of(desk).take(*signed(coop, document))
    assert (item.status, item.current_decision) == ("decided", "block")
    (verdict,) = desk.verdicts
    assert (verdict["supersedes"], verdict["decision"], verdict["note"]) == (verdict_id(1), "block", "it is a threat")
    assert verdict["corrected"] == {"severity": None, "categories": ["Violent"]}
    assert verdict["decided_by"].startswith("coop:")
    assert "mara" not in verdict["decided_by"]


async def test_a_repeated_callback_changes_nothing(coop: Coop, desk: LocalDesk) -> None:
    callback = signed(coop, action_callback(verdict_id(1)))
    bridge = bridge_of(desk)
    for _ in range(3):
        assert (await bridge.take(*callback)).current_decision == "block"
    assert len(desk.verdicts) == 1


async def test_an_appeal_is_decided_by_its_own_callback_and_by_no_older_one(coop: Coop, desk: LocalDesk) -> None:
    bridge, service = bridge_of(desk), Person("bot", ReviewRole.SERVICE, Reader("bot", False))
    action = signed(coop, action_callback(verdict_id(1)))
    current = (await bridge.take(*action)).current
    await desk.service.appeal(service, verdict_id(1), "it was a joke")
    with pytest.raises(Refusal, match="only the callback of the appeal"):
        await bridge.take(*signed(coop, action_callback(verdict_id(1), "action-allow")))
    with pytest.raises(Refusal, match="does not wait any more"):
        await bridge.take(*signed(coop, appeal_callback(f"{verdict_id(1)}.{verdict_id(1)}", verdict_id(1), "ACCEPT")))
    await bridge.take(*action)  # An old callback that somebody sends again.
    assert len(desk.verdicts) == 1
    appeal = signed(coop, appeal_callback(f"{verdict_id(1)}.{current}", verdict_id(1), "ACCEPT"))
    assert (await bridge.take(*appeal)).current_decision == "allow"
    assert (await bridge.take(*appeal)).current_decision == "allow"
    assert [verdict["decision"] for verdict in desk.verdicts] == ["block", "allow"]


async def test_a_second_appeal_is_decided_by_its_own_callback_too(coop: Coop, desk: LocalDesk) -> None:
    bridge, service = bridge_of(desk), Person("bot", ReviewRole.SERVICE, Reader("bot", False))
    current = (await bridge.take(*signed(coop, action_callback(verdict_id(1))))).current
    for _ in range(2):
        await desk.service.appeal(service, verdict_id(1), "it was a joke")
        appeal = appeal_callback(f"{verdict_id(1)}.{current}", verdict_id(1), "REJECT")
        current = (await bridge.take(*signed(coop, appeal))).current
    assert [verdict["decision"] for verdict in desk.verdicts] == ["block"] * 3
    assert desk.verdicts[1]["decided_by"] == f"coop:appeals:{desk.verdicts[0]['verdict_id'][:8]}"


async def test_what_the_worker_does_not_know_or_does_not_show_to_coop_is_not_found(coop: Coop, desk: LocalDesk) -> None:
    desk.add(2, tenant_id="other")
    for item in (verdict_id(9), verdict_id(2), "user-17"):
        with pytest.raises(Refusal) as refused_:
            await bridge_of(desk).take(*signed(coop, action_callback(item)))
        assert refused_.value.status == 404


async def test_an_item_that_a_person_decided_first_is_a_conflict(coop: Coop, desk: LocalDesk) -> None:
    mara = Person("mara", ReviewRole.REVIEWER, Reader("mara", False))
    await desk.service.decide(mara, verdict_id(1), "allow")
    with pytest.raises(Refusal, match="mara was first") as refused_:
        await bridge_of(desk).take(*signed(coop, action_callback(verdict_id(1))))
    assert refused_.value.status == 409


def test_the_endpoint_takes_signed_callbacks_only_and_exists_only_with_a_key(
    coop: Coop, desk: LocalDesk, tmp_path: Path
) -> None:
    client = TestClient(desk.app())
    body, headers = coop.signed(action_callback(verdict_id(1)))
    assert client.post("/v1/coop/callback", content=body).status_code == 401
    assert desk.verdicts == []
    answer = client.post("/v1/coop/callback", content=body, headers=headers)
    assert (answer.status_code, answer.json()["decision"]) == (200, "block")
    assert client.post("/v1/coop/callback", content=b"x" * 2_000_000, headers=headers).status_code == 413
    without = TestClient(LocalDesk(tmp_path).app())
    assert without.post("/v1/coop/callback", content=body, headers=headers).status_code == 404


def test_two_people_in_coop_have_two_names_and_a_rule_has_its_own() -> None:
    def by(email: str | None) -> str:
        return read(bytes_of(action_callback(ROOT, actorEmail=email)), SETTINGS).by

    assert by("mara@platform.example") == by("Mara@platform.example") != by("jonas@platform.example")
    assert by(None) == AUTOMATIC


def test_an_ignored_report_is_allowed() -> None:
    assert read(bytes_of(ignore_callback(ROOT)), SETTINGS).decision == "allow"


@pytest.mark.parametrize(("decision", "expected"), [("ACCEPT", "allow"), ("REJECT", "block")])
def test_an_appeal_reverses_or_confirms_the_decision(decision: str, expected: str) -> None:
    callback = read(bytes_of(appeal_callback(f"{ROOT}.{NEWER}", ROOT, decision)), SETTINGS)
    assert decision_of(callback, APPEALED, is_repeated=False) == expected


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"action": 5}', 422),
        (b'{"action": {"id": "ban-user"}, "item": {"id": "x"}}', 422),
        (b'{"action": {"id": "action-block"}}', 400),
        (b'{"action": {"id": "action-block"}, "item": {"id": 5}}', 400),
        (b'{"appealDecision": "ACCEPT", "appealId": "theirs"}', 404),
        (b'{"appealDecision": "PERHAPS", "appealId": "a.b"}', 400),
        (b'{"appealDecision": "ACCEPT"}', 400),
        (b'{"id": 1, "typeId": "t", "data": {}}', 400),
    ],
)
def test_what_is_no_callback_is_refused_with_a_sentence(body: bytes, status: int) -> None:
    assert refused(status, read, body, SETTINGS)


def test_strange_parts_of_a_callback_do_no_harm() -> None:
    strange: dict[str, Any] = {"policies": [5, {"id": ["x"]}, {}], "decisionReason": "long" * 5_000, "actorEmail": 7}
    callback = read(bytes_of(action_callback(ROOT, **strange)), SETTINGS)
    assert callback.note is not None
    assert len(callback.note) == MAX_NOTE_CHARS
    assert callback.categories == ()
