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

from tests.clear import UNSAFE
from tests.raw_header import send
from tests.site import Site, eventually
from workers.kafka.intake import headers_of
from workers.kafka.reader import read

GOOD = json.dumps({"event_id": "good", "tenant_id": "acme", "surface": "chat", "text": "hello"}).encode()


def event(**changes: object) -> bytes:
    return json.dumps({**json.loads(GOOD), **changes}).encode()


BAD: dict[str, bytes] = {
    "empty": b"",
    "not JSON": b"{",
    "not UTF-8": b'{"event_id": "\xff"}',
    "no tenant": b'{"event_id": "a", "text": "x"}',
    "no text": b'{"event_id": "a", "tenant_id": "t"}',
    "not an object": b"[1, 2]",
    "not a text": event(text=["x"]),
    "nested": b"[" * 100_000 + b"]" * 100_000,
}

JUDGED: dict[str, tuple[bytes, list[str]]] = {
    "numbers as ids": (event(event_id=7, author_id=8, text=UNSAFE), []),
    "an unknown surface": (event(surface="mail", text=UNSAFE), ["surface"]),
    "half an emoji": (b'{"event_id": "a", "tenant_id": "t", "nick": "\\ud83d", "text": "%b"}' % UNSAFE.encode(), []),
    "NaN": (b'{"event_id": "a", "tenant_id": "t", "text": "%b", "n": NaN}' % UNSAFE.encode(), []),
    "no id": (event(event_id=None, text=UNSAFE), ["event_id"]),
    "a long text": (event(text=f"{UNSAFE}. " * 1_500), []),
    "a text past every limit": (event(text=f"{UNSAFE}. " * 30_000), []),
}


def test_each_bad_record_becomes_a_dead_letter_and_the_others_are_judged(site: Site) -> None:
    site.create_topics()
    worker = site.worker()
    for value in BAD.values():
        site.produce([(b"k", value)], headers=[("trace", b"\xff\x00not text"), ("nothing", None)])
        site.produce([(None, GOOD), (b"k", None), (b"k", GOOD)])
    outcome = site.check()
    assert outcome.dead_letters == len(BAD)
    assert outcome.verdicts == 2 * len(BAD)
    assert worker.popen.poll() is None
    dead = [found[0] for found in outcome.by_position.values() if "reason" in found[0]]
    assert Counter(letter["value"] for letter in dead) == Counter(BAD.values())
    for letter in dead:
        assert letter["reason"].decode()
        assert letter["detail"].decode()
        assert letter["trace"] == b"\xff\x00not text"
        assert letter["nothing"] is None


def test_a_threat_is_blocked_whatever_else_is_wrong_with_its_record(site: Site) -> None:
    """And the named headers of a record travel to its verdict, which keeps its place among those without headers."""
    site.create_topics()
    site.worker()
    for value, _ in JUDGED.values():
        site.produce([(b"k", value)])
        site.produce([(b"k", GOOD)], headers=[("traceparent", b"00-1"), ("other", b"x"), ("tracestate", None)])
    site.produce([(b"k", event(text="", attributes={"channel": 7}, created_at=1_735_725_600))])
    outcome = site.check()
    *judged, empty = [outcome.by_position[position][0] for position in site.sent]
    for (value, ignored), verdict in zip(JUDGED.values(), judged[::2], strict=True):
        assert verdict["decision"] == "block", value
        assert verdict["ignored_fields"] == ignored
    assert judged[-2]["truncated_text_chars"] > 800_000
    assert judged[-2]["assessment"]["windows"] > 1
    assert judged[8]["event_id"] == "/".join(map(str, site.sent[8]))
    assert (empty["decision"], empty["reasons"], empty["assessment"]) == ("allow", ["empty"], None)
    assert (empty["attributes"], empty["created_at"]) == ({"channel": 7}, "2025-01-01T10:00:00Z")
    settings = site.settings()
    records = read(settings.kafka, [settings.topics.verdicts], from_beginning=True, follow=False)
    headers = [headers_of(message) for message in records if message is not None]
    assert headers == [*[[], [("traceparent", b"00-1"), ("tracestate", None)]] * len(JUDGED), []]


def test_a_header_name_that_is_not_utf8_costs_only_the_headers(site: Site) -> None:
    """It crashed the process, cold in one way and warm in another: hence some good records before each."""
    site.create_topics()
    settings = site.settings()
    worker = site.worker()
    for round_ in range(3):
        site.events(60, start=round_ * 60)
        send(settings.kafka.bootstrap_servers, settings.topics.inputs[1], GOOD, b"tr\xffce")
        site.sent.append((settings.topics.inputs[1], 0, round_))
    outcome = site.check()
    assert outcome.dead_letters == 0
    assert outcome.by_position[site.sent[-1]][0]["ignored_fields"] == ["headers"]
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


def test_outputs_that_are_too_large_are_shortened_or_become_a_truncated_dead_letter(site: Site) -> None:
    """A message that was judged keeps its verdict, unless even the shortened outputs are too large for their topics."""
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
    site.produce([(b"k", GOOD)], headers=[("trace", b"\xff"), ("traceparent", b"x" * 4_000)])
    outcome = site.check()
    long, _, letter = (outcome.by_position[position][0] for position in site.sent)
    assert (long["decision"], long["truncated_text_chars"]) == ("review", 0)
    items = read(settings.kafka, [settings.topics.review], from_beginning=True, follow=False)
    item, _ = [json.loads(message.value() or b"") for message in items if message is not None]
    assert item["verdict_id"] == long["verdict_id"]
    assert item["text"].startswith("word word")
    assert item["truncated_text_chars"] == 10_000 - len(item["text"]) + 1
    assert letter["trace"] == b"\xff"
    assert letter["reason"] == b"output_too_large"
    assert int(letter["truncated.length"]) > 500
    assert len(letter["truncated.sha256"]) == 64
    assert outcome.verdicts == 2


def test_produce_and_dead_letters_say_which_records_are_invalid_and_why(site: Site) -> None:
    too_many = site.command("topics", "create", code=2, GUARDLINE_TOPICS__REPLICATION="3").stderr
    assert "topics.replication: cannot create " in too_many
    created = site.command("topics", "create", GUARDLINE_TOPICS__INPUTS='["^chat.*"]')
    settings = site.settings()
    outputs = {settings.topics.verdicts, settings.topics.review, settings.topics.dead_letters, settings.topics.usage}
    assert {f"created {topic}" for topic in outputs} <= set(created.stdout.splitlines())
    assert "not created: ^chat.* is a pattern of input topics" in created.stderr
    site.create_topics()
    partitions = site.settings().topics.partitions
    again = site.command("topics", "create", GUARDLINE_TOPICS__PARTITIONS=str(partitions + 1)).stdout
    differs = f", with {partitions} partitions (topics.partitions is {partitions + 1})"
    assert again.count(differs) == again.count("already there: ") > 4
    file = Path(site.folder.name) / "events.jsonl"
    file.write_bytes(GOOD + b"\n\n{\n" + event(text=["x"]) + b"\n")
    site.produce([("zürich".encode(), b"{"), (b"\x1b[31m", b"{"), (b"", b"{")])
    said = site.command("produce", file).stderr
    assert "3 records produced" in said
    assert "2 of them are not valid events" in said
    assert "line 3: " in said
    (wrong := file.with_name("a.csv")).write_text("id,text\n1,hi\n")
    assert (
        "nothing was sent: the first 2 lines hold no valid event; line 1: "
        in site.command("produce", wrong, code=2).stderr
    )
    mapping = file.with_name("mapping.yaml")
    mapping.write_text("text: message\ntenant_id: {value: acme}\n")
    file.write_bytes(b'{"message": "hi"}\n')
    mapped = site.command("produce", file, GUARDLINE_EVENTS__MAPPING=str(mapping)).stderr
    assert "1 record produced" in mapped
    assert "not checked whether they are valid events, because events.mapping is set" in mapped
    site.worker()
    eventually(lambda: site.answered() == 7, "all are answered")
    letters = site.command("dead-letters").stdout.splitlines()
    assert sorted(letter.split()[0] for letter in letters) == ["invalid_field", "missing_field", *["not_json"] * 4]
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
        ({"GUARDLINE_TOPICS__INPUTS": '["^("]'}, "topics.inputs: '^(' is not a regular expression"),
        ({"GUARDLINE_EVENTS__MAPPING": "/no/such/mapping.yaml"}, "events.mapping: cannot read /no/such/mapping.yaml"),
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
