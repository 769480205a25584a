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
from workers.actions.delivery import Delivery
from workers.actions.formats import format_of
from workers.actions.letters import Letters
from workers.actions.reading import Reading, inputs_of
from workers.actions.secrets import Secrets
from workers.core.dead_letters import read_letter
from workers.core.records import Finished, Record, Source, TopicPartition
from workers.errors import Undecodable
from workers.settings import Topics

TOPICS = Topics()
FIXTURES = Path(__file__).parents[2] / "fixtures" / "contracts"


def newest(contract: str) -> dict[str, Any]:
    path = max((FIXTURES / contract).glob("*.json"), key=lambda file: [int(part) for part in file.stem.split(".")])
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def read(topic: str, document: object, tmp_path: Path, **changes: Any) -> Delivery | None:
    (tmp_path / "secret").write_text("whsec_" + "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=")
    one = endpoint(secret_files=[str(tmp_path / "secret")], **changes)
    value = document if isinstance(document, bytes) else json.dumps(document).encode()
    source = Source(TopicPartition(topic, 2), 1, 7, 1_795_873_985_250)
    found = Reading(one, TOPICS, format_of(one, Secrets(one)))(Record(value, b"key", [], topic), source)
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
    assert found.id in (body["data"].get("verdict_id"), body["data"].get("signal_id"))
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
        (b"[]", "invalid_field"),
        (b'{"tenant_id": 7}', "invalid_field"),
        (b'{"tenant_id": "secret words"}', "missing_field"),
        (b'{"tenant_id": "a", "verdict_id": "secret words\\r\\nX: y", "decision": "block"}', "invalid_field"),
        (b'{"tenant_id": "a", "verdict_id": "", "decision": "block"}', "invalid_field"),
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


@pytest.mark.parametrize("reason", [None, "refused", "expired", "gone"])
def test_what_a_delivery_leaves_keeps_the_contracts_and_names_no_author(reason: str | None) -> None:
    one = delivery(3, "author-17")
    one.attempts, one.status, one.reason = 2, 422, "the endpoint answered 422"
    one.first_attempt_ms = one.last_attempt_ms = one.at_ms
    finished = Letters(endpoint(), "moderation.deliveries").finished(one, reason, 1_795_873_985)
    record, *letters = finished.outputs
    written = json.loads(record.value or b"")
    assert DeliveryRecord.model_validate(written).model_dump(mode="json") == written
    assert (written["outcome"], record.key) == (reason or "delivered", b"id-3")
    assert b"author-17" not in (record.value or b"")
    assert len(letters) == (reason is not None)
    for letter in letters:
        headers = {name: (value or b"").decode() for name, value in letter.headers or []}
        model = UndeliveredHeaders.model_validate(headers)
        assert model.model_dump(mode="json", by_alias=True, exclude_unset=True) == headers
        assert (letter.topic, letter.key, letter.value) == ("moderation.undelivered.platform", b"author-17", one.body)
        assert read_letter(letter.headers or []) is not None
