"""Which records an endpoint wants, and what the body of its calls holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from schemas.delivery import Delivery as DeliveryRecord
from schemas.headers import UndeliveredHeaders
from schemas.webhook import Webhook as WebhookContract
from tests.unit.actions.deliveries import delivery, endpoint
from workers.actions.authors import is_forgotten
from workers.actions.delivery import Delivery
from workers.actions.formats import format_of
from workers.actions.letters import Letters
from workers.actions.reading import Reading, inputs_of
from workers.actions.redeliver import delivery_of
from workers.actions.secrets import Secrets
from workers.core.dead_letters import read_letter
from workers.core.forgotten import Forgotten
from workers.core.records import Finished, Record, Source, TopicPartition
from workers.errors import Undecodable
from workers.kafka.replay import Stored
from workers.settings import Topics

TOPICS = Topics()
INVALID = "invalid_field"
FIXTURES = Path(__file__).parents[2] / "fixtures" / "contracts"


def newest(contract: str) -> dict[str, Any]:
    path = max((FIXTURES / contract).glob("*.json"), key=lambda file: [int(part) for part in file.stem.split(".")])
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def read(
    topic: str, document: object, tmp_path: Path, *, carry: bool | list[str] = True, **changes: Any
) -> Delivery | None:
    (tmp_path / "secret").write_text("whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=")
    one = endpoint(secret_files=[str(tmp_path / "secret")], **changes)
    value = document if isinstance(document, bytes) else json.dumps(document).encode()
    source = Source(TopicPartition(topic, 2), 1, 7, 1_795_873_985_250)
    found = Reading(one, TOPICS, format_of(one, Secrets(one), carry))(Record(value, b"key", [], topic), source)
    if isinstance(found, Finished):
        assert found.outputs == ()
        return None
    (only,) = found
    return only


def verdict(**changes: Any) -> dict[str, Any]:
    return {**newest("verdict"), "supersedes": None, "superseded_decision": None, "decision": "block", **changes}


@pytest.mark.parametrize(
    ("topic", "document", "kinds", "expected"),
    [
        (TOPICS.verdicts, verdict(), ["verdict"], "verdict.created"),
        (TOPICS.verdicts, verdict(supersedes="f" * 32), ["superseding"], "verdict.superseded"),
        (TOPICS.signals, newest("signal"), ["signal"], "signal.changed"),
        (TOPICS.review, newest("review"), ["review"], "review.requested"),
    ],
)
def test_the_body_keeps_the_contract_and_never_has_a_text(
    topic: str, document: dict[str, Any], kinds: list[str], expected: str, tmp_path: Path
) -> None:
    found = read(topic, {**document, "decision": "review"}, tmp_path, kinds=kinds)
    assert found is not None
    body = json.loads(found.body)
    WebhookContract.model_validate(body)
    assert (body["type"], body["timestamp"]) == (expected, "2026-11-28T13:53:05.250Z")
    suffix = ".review" if kinds == ["review"] else ""
    assert found.id == body["data"].get("verdict_id", body["data"].get("signal_id")) + suffix
    assert not {"text", "context"} & body["data"].keys()
    assert (found.key, found.tenant_id) == (b"key", document["tenant_id"])


@pytest.mark.parametrize(
    ("document", "changes", "is_wanted"),
    [
        (verdict(decision="allow"), {}, False),
        (verdict(decision="allow"), {"decisions": ["allow"]}, True),
        (verdict(decision="allow", supersedes="f" * 32, superseded_decision="block"), {}, True),
        (verdict(decision="allow", supersedes="f" * 32, superseded_decision="allow"), {}, False),
        (verdict(), {"kinds": ["superseding"]}, False),
        (verdict(supersedes="f" * 32), {"kinds": ["verdict"]}, False),
        (verdict(), {"tenants": ["other"]}, False),
        (verdict(), {"tenants": ["other", newest("verdict")["tenant_id"]]}, True),
        (b"\x00\x00\x00\x00\x07" + json.dumps(verdict()).encode(), {}, True),
    ],
    ids=["allow", "wanted", "lifted", "same", "kind", "not superseding", "tenant", "own tenant", "framed"],
)
def test_only_wanted_records_become_deliveries(
    document: object, changes: dict[str, Any], is_wanted: bool, tmp_path: Path
) -> None:
    assert (read(TOPICS.verdicts, document, tmp_path, **changes) is not None) == is_wanted


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "not_json"),
        (b"secret words", "not_json"),
        (b"[]", INVALID),
        (b'{"tenant_id": 7}', INVALID),
        (b'{"tenant_id": "secret words"}', "missing_field"),
        (b'{"tenant_id": "a", "verdict_id": "secret words\\r\\nX: y", "decision": "block"}', INVALID),
        (b'{"tenant_id": "a", "verdict_id": "", "decision": "block"}', INVALID),
        (b'{"tenant_id": "secret words\xff"}', "not_json"),
        (b'{"tenant_id": "secret words", "x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}", "not_json"),
        (json.dumps(verdict(author_id=["secret words"])).encode(), INVALID),
        (json.dumps(verdict(author_id="a", timings={"received_at": "secret words"}, source=None)).encode(), INVALID),
        (json.dumps(verdict(author_id="a", source="secret words")).encode(), INVALID),
    ],
)
def test_a_record_that_is_no_verdict_is_refused_without_its_content(value: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(Undecodable) as refused:
        read(TOPICS.verdicts, value, tmp_path)
    assert refused.value.reason == reason
    assert "secret words" not in str(refused.value)


def test_an_endpoint_reads_only_the_topics_of_its_kinds() -> None:
    assert list(inputs_of(endpoint(kinds=["signal"]), TOPICS)) == [TOPICS.signals]
    assert list(inputs_of(endpoint(kinds=["verdict", "review"]), TOPICS)) == [TOPICS.verdicts, TOPICS.review]


def test_a_verdict_and_its_review_item_have_two_ids_and_only_the_attributes_that_verdicts_carry(tmp_path: Path) -> None:
    document = {**newest("review"), "decision": "review", "supersedes": None, "attributes": {"room": "r", "mail": "m"}}
    kinds = ["verdict", "review"]
    held = read(TOPICS.review, document, tmp_path, carry=["room"], kinds=kinds)
    of_verdict = read(TOPICS.verdicts, document, tmp_path, kinds=kinds)
    assert held is not None
    assert of_verdict is not None
    assert held.id != of_verdict.id == document["verdict_id"]
    assert json.loads(held.body)["data"]["attributes"] == {"room": "r"}
    none = read(TOPICS.review, document, tmp_path, carry=False, kinds=kinds)
    assert none is not None
    assert json.loads(none.body)["data"]["attributes"] == {}


@pytest.mark.parametrize("sent_ms", [None, 5_000])
def test_a_request_to_forget_covers_deliveries_that_name_the_author_also_as_dead_letters(
    sent_ms: int | None, tmp_path: Path
) -> None:
    happened_ms = sent_ms or 9_000
    document = verdict(tenant_id="acme", author_id="ann", timings={"received_at": 9_000}, source={"timestamp": sent_ms})
    found = read(TOPICS.verdicts, document, tmp_path)
    assert found is not None
    signal = {**newest("signal"), "subject": "ann", "at": "1970-01-01T00:00:05Z"}
    of_signal = read(TOPICS.signals, signal, tmp_path, kinds=["signal"])
    assert of_signal is not None
    letter = Letters(endpoint(), "moderation.deliveries").finished(found, "refused", 0).outputs[1]
    headers = read_letter(letter.headers or [])
    assert headers is not None
    stored = Stored(TopicPartition("undelivered", 0), 1, b"", letter.value, 0, headers, b"", is_sent=False)
    again = delivery_of(stored)
    assert again is not None
    for one, at_ms in ((found, happened_ms), (again, happened_ms), (of_signal, 5_000)):
        known = Forgotten()
        assert not is_forgotten(known, one)
        known.note("acme", "ann", at_ms - 1)
        assert not is_forgotten(known, one), "the author wrote again later"
        known.note("acme", "ann", at_ms)
        assert is_forgotten(known, one)
    about_all = read(TOPICS.signals, {**signal, "kind": "harm_rate"}, tmp_path, kinds=["signal"])
    assert about_all is not None
    assert about_all.author_id is None


@pytest.mark.parametrize("reason", [None, "forgotten", "refused", "expired", "gone"])
def test_what_a_delivery_leaves_keeps_the_contracts_and_names_no_author(reason: str | None) -> None:
    one = delivery(3, "author-17")
    one.attempts, one.status, one.reason = 2, 422, "the endpoint answered 422"
    one.first_attempt_ms = one.last_attempt_ms = one.at_ms
    one.author_id, one.happened_ms = "ann", 7
    finished = Letters(endpoint(), "moderation.deliveries").finished(one, reason, 1_795_873_985)
    record, *letters = finished.outputs
    written = json.loads(record.value or b"")
    assert DeliveryRecord.model_validate(written).model_dump(mode="json") == written
    assert (written["outcome"], record.key) == (reason or "delivered", b"id-3")
    assert b"author-17" not in (record.value or b"")
    assert len(letters) == (reason not in (None, "forgotten"))
    for letter in letters:
        headers = {name: (value or b"").decode() for name, value in letter.headers or []}
        model = UndeliveredHeaders.model_validate(headers)
        assert model.model_dump(mode="json", by_alias=True, exclude_unset=True) == headers
        assert (letter.topic, letter.key, letter.value) == ("moderation.undelivered.platform", b"author-17", one.body)
        assert read_letter(letter.headers or []) is not None
