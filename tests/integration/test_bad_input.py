"""What cannot be judged becomes a dead letter with its position; its neighbours, and the worker, go on."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourceType

from tests.raw_header import send
from tests.site import Site, eventually

GOOD = json.dumps({"event_id": "good", "tenant_id": "acme", "surface": "chat", "text": "hello"}).encode()


def event(**changes: object) -> bytes:
    return json.dumps({**json.loads(GOOD), **changes}).encode()


BAD: dict[str, bytes | None] = {
    "tombstone": None,
    "empty": b"",
    "not_json": b"{",
    "not_utf8": b'{"event_id": "\xff"}',
    "missing_field": b'{"event_id": "a"}',
    "wrong_type": b"[1, 2]",
    "empty_text": event(text=""),
    "surface": event(surface="mail"),
    "id_type": event(event_id=7),
    "surrogate": b'{"event_id": "a", "tenant_id": "t", "surface": "chat", "text": "\\ud800"}',
    "nan": b'{"event_id": "a", "tenant_id": "t", "surface": "chat", "text": "x", "n": NaN}',
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "long_text": event(text="x" * 40_000),
    "huge": event(text="x" * 900_000),
}


def test_each_bad_record_becomes_a_dead_letter_and_the_others_are_judged(site: Site) -> None:
    site.create_topics()
    worker = site.worker()
    records: list[tuple[bytes | None, bytes | None]] = []
    for name, value in BAD.items():
        records += [(b"k", GOOD), (b"k", value)] if name != "tombstone" else [(None, value), (b"k", GOOD)]
    site.produce(records, headers=[("trace", b"\xff\x00not text"), ("nothing", None)])
    outcome = site.check()
    assert outcome.dead_letters == len(BAD)
    assert outcome.verdicts == len(BAD)
    assert worker.popen.poll() is None
    dead = [found[0] for found in outcome.by_position.values() if "reason" in found[0]]
    assert Counter(letter["value"] for letter in dead) == Counter(BAD.values())
    for letter in dead:
        assert letter["reason"].decode()
        assert letter["detail"].decode()
        assert letter["trace"] == b"\xff\x00not text"
        assert letter["nothing"] is None


def test_a_header_whose_name_is_no_text_is_a_dead_letter_and_its_neighbours_are_judged(site: Site) -> None:
    """It crashed the process, cold in one way and warm in another: hence some good records before each."""
    site.create_topics()
    settings = site.settings()
    worker = site.worker()
    for round_ in range(3):
        site.events(60, start=round_ * 60)
        send(settings.kafka.bootstrap_servers, settings.topics.inputs[1], GOOD, b"tr\xffce")
        site.sent.append((settings.topics.inputs[1], 0, round_))
    outcome = site.check()
    assert outcome.dead_letters == 3
    letter = outcome.by_position[site.sent[-1]][0]
    assert (letter["reason"], letter["value"]) == (b"invalid_headers", GOOD)
    assert worker.popen.poll() is None


def test_an_unknown_tenant_gets_the_strict_default(site: Site) -> None:
    site.create_topics()
    site.worker()
    site.produce([(b"k", event(tenant_id="nobody-knows-me"))])
    outcome = site.check()
    (verdict,) = next(iter(outcome.by_position.values()))
    assert verdict["policy"]["id"] == "default-strict"


def test_the_same_event_again_is_a_duplicate_and_an_edit_is_not(site: Site) -> None:
    site.create_topics()
    site.worker()
    site.produce([(b"k", GOOD)])
    site.check()
    site.produce([(b"k", GOOD), (b"k", event(text="edited"))])
    outcome = site.check()
    first, again, edited = (outcome.by_position[position][0] for position in site.sent)
    assert first["duplicate_of"] is None
    assert again["duplicate_of"] == first["verdict_id"]
    assert again["assessment"] == first["assessment"]
    assert edited["duplicate_of"] is None


def test_a_changed_policy_decides_the_same_text_differently_within_a_second(site: Site) -> None:
    site.create_topics()
    site.worker()
    policy = site.folder.name + "/policy.yaml"
    with open(policy, "w") as file:
        file.write("safe: block\n")
    site.produce([(b"k", event(tenant_id="acme", text="What a lovely morning"))])
    site.check()
    site.command("policy", "set", "acme", policy)
    time.sleep(1)  # The guarantee is this time.
    site.produce([(b"k", event(event_id="again", text="What a lovely morning"))])
    outcome = site.check()
    before, after = (outcome.by_position[position][0] for position in site.sent)
    assert (before["policy"]["id"], after["policy"]["id"]) == ("default-strict", "acme")
    assert after["decision"] == "block"


def test_a_verdict_that_is_too_large_becomes_a_truncated_dead_letter(site: Site) -> None:
    """The review item of a long text is larger than the review topic takes: a record for good, not a loop."""
    site.create_topics()
    settings = site.settings()
    entry = ConfigEntry("max.message.bytes", "4000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, settings.topics.review, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(10)
    policy = site.folder.name + "/policy.yaml"
    with open(policy, "w") as file:
        file.write("safe: review\ncontroversial: review\nunsafe: review\n")
    site.command("policy", "set", "acme", policy)
    site.worker()
    site.produce([(b"k", event(event_id="long", text="word " * 2000)), (b"k", GOOD)], headers=[("trace", b"\xff")])
    outcome = site.check()
    letter = outcome.by_position[site.sent[0]][0]
    assert letter["trace"] == b"\xff"
    assert letter["reason"] == b"output_too_large"
    assert int(letter["truncated.length"]) > 4000
    assert len(letter["truncated.sha256"]) == 64
    assert outcome.verdicts == 1


def test_produce_says_which_records_are_no_events_and_dead_letters_says_why(site: Site) -> None:
    site.create_topics()
    file = Path(site.folder.name) / "events.jsonl"
    file.write_bytes(GOOD + b"\n\n{\n" + event(surface="mail") + b"\n")
    site.produce([("zürich".encode(), b"{"), (b"\x1b[31m", b"{"), (b"", b"{")])
    said = site.command("produce", file).stderr
    assert "3 records produced" in said
    assert "2 of them are no events" in said
    assert "line 3: " in said
    site.worker()
    eventually(lambda: site.answered() == 6, "all are answered")
    letters = site.command("dead-letters").stdout.splitlines()
    assert sorted(letter.split()[0] for letter in letters) == ["invalid_field", *["not_json"] * 4]
    assert all(f"{site.settings().topics.inputs[0]}/" in letter for letter in letters)
    keys = {letter.split()[2] for letter in letters}
    assert keys > {"zürich", "'\\x1b[31m'", "''"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"GUARDLINE_GUARD__MODEL": "/no/such/folder"}, "guard.model"),
        ({"GUARDLINE_GUARD__ENGINE": "abacus"}, "guard.engine"),
        ({"GUARDLINE_KAFKA__PROPERTIES": '{"isolation.level": "read_uncommitted"}'}, "isolation.level"),
        ({"GUARDLINE_KAFKA__PROPERTIES": '{"no.such": 1}'}, "kafka.properties"),
        ({"GUARDLINE_KAFKA__BOOTSTRAP_SERVERS": ""}, "kafka.bootstrap_servers"),
        ({"GUARDLINE_REDIS__URL": "localhost:6379"}, "redis.url"),
        ({"GUARDLINE_REDIS__URL": "redis://localhost:6379/0?no_such=1"}, "redis.url"),
        ({"GUARDLINE_HTTP__HOST": "no.such.host.invalid"}, "http.host"),
        ({"GUARDLINE_BATCH__LOW_WATER": "90000"}, "batch"),
        (
            {"GUARDLINE_KAFKA__MAX_POLL_INTERVAL_S": "30", "GUARDLINE_KAFKA__SESSION_TIMEOUT_S": "45"},
            "kafka.session_timeout_s (45)",
        ),
        ({"GUARDLINE_KAFKA__PROPERTIES": '{"linger.ms": 60000}'}, "linger.ms"),
        ({"GUARDLINE_KAFKA__TRANSACTION_TIMEOUT_S": "60", "GUARDLINE_KAFKA__MAX_POLL_INTERVAL_S": "50"}, "kafka"),
    ],
)
def test_a_wrong_configuration_ends_with_a_sentence_and_exit_code_2(
    site: Site, changes: dict[str, str], named: str
) -> None:
    site.create_topics()
    assert named in site.command("worker", "moderation", code=2, **changes).stderr
