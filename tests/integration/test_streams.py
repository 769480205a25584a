"""A streams worker on a real Kafka and Redis, with a real engine: one worker, many streams."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.site import Site, eventually
from tests.stack import Stack
from tests.streaming import Answers, Position, checkpoint, step
from workers.kafka import clients
from workers.kafka.intake import headers_of
from workers.kafka.topic_settings import keeping_of
from workers.kafka.topics import create

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("stream"))


ALLOWED = {"cut_prompt": None, "cut_unsafe": None}
"""Rules with which nothing that the model finds cuts a stream: its weights are random."""


def test_every_record_has_one_verdict_and_a_cut_has_one_intervention(site: Site, stack: Stack, model: Path) -> None:
    answers = Answers(site, model)
    answers.create_topics()
    sessions = answers.topics.stream_sessions
    assert keeping_of(clients.admin(site.settings().kafka), [sessions])[sessions].policy == "compact,delete"
    policies = {
        "acme": ALLOWED,
        "strict": {"cut_prompt": None, "cut_unsafe": 1, "threshold": 0.001, "replacement": "Stopped."},
        "lenient": {**ALLOWED, "on_unavailable": "allow"},
    }
    for tenant, stream in policies.items():
        file = Path(site.folder.name) / f"{tenant}.json"
        file.write_text(json.dumps({"stream": stream}))
        site.command("policy", "set", tenant, str(file))
    worker = answers.worker("one")
    streams: dict[str, list[tuple[dict[str, Any], str]]] = {
        "plain": [
            (step("open", 0, "plain"), "opened"),
            (step("user", 1, "plain", "How are you?"), "judged"),
            (step("delta", 2, "plain", "I"), "waiting"),
            (step("delta", 3, "plain", " am very well, thank you."), "judged"),
            (step("delta", 3, "plain", " am very well, thank you."), "repeated"),
            (step("delta", 4, "plain", [500, 501]), "judged"),
            (step("close", 5, "plain"), "closed"),
            (step("delta", 6, "plain", "more"), "unknown_stream"),
        ],
        "cut": [
            (step("open", 0, "cut", tenant_id="strict"), "opened"),
            (step("delta", 1, "cut", "a text that is judged", tenant_id="strict"), "cut"),
            (step("delta", 2, "cut", "more", tenant_id="strict"), "after_cut"),
            (step("close", 3, "cut", tenant_id="strict"), "closed"),
        ],
        "jump": [
            (step("open", 0, "jump"), "opened"),
            (step("delta", 1, "jump", "It is good"), "judged"),
            (step("delta", 3, "jump", " morning"), "out_of_order"),
            (step("delta", 4, "jump", " to you"), "after_cut"),
        ],
        "lenient": [
            (step("open", 0, "lenient", tenant_id="lenient"), "opened"),
            (step("delta", 1, "lenient", [48_000], tenant_id="lenient"), "refused"),
            (step("delta", 2, "lenient", "12345", tenant_id="lenient"), "unavailable"),
            (step("close", 3, "lenient", tenant_id="lenient"), "closed"),
        ],
        "long": [
            (step("open", 0, "long"), "opened"),
            (step("delta", 1, "long", "x" * 300_000), "too_long"),
        ],
        "twice": [
            (step("open", 0, "twice"), "opened"),
            (step("user", 1, "twice", "one"), "judged"),
            (step("open", 0, "twice"), "repeated"),
            (step("user", 1, "twice", "two"), "out_of_order"),
        ],
        "large": [
            (step("open", 0, "large"), "opened"),
            (step("delta", 1, "large", list(range(300, 30_300))), "judged"),
            (step("close", 2, "large"), "closed"),
        ],
    }
    expected: dict[Position, str] = {}
    for records in streams.values():
        positions = answers.send(value for value, _ in records)
        expected |= dict(zip(positions, (outcome for _, outcome in records), strict=True))
    bad = answers.send([b"not json", json.dumps(step("open", 0, "x", "text")).encode()], key=b"x")
    eventually(lambda: answers.answered() == len(expected), "every record has its verdict", 60)
    verdicts = answers.verdicts()
    assert {position: verdict["outcome"] for position, verdict in verdicts.items()} == expected
    of = {(one["stream_id"], one["seq"], one["outcome"]): one for one in verdicts.values()}
    judged = of["plain", 3, "judged"]
    assert judged["shown_chars"] > 0
    assert len(judged["risk"]) == len(judged["categories"]) > 3
    assert of["plain", 5, "closed"]["shown_chars"] >= len("I am very well, thank you.")
    assert of["lenient", 2, "unavailable"]["shown_chars"] == 5
    large = of["large", 1, "judged"]
    assert large["first_position"] + len(large["risk"]) == 30_000
    # The parts of one transaction need not become visible at the same moment.
    eventually(lambda: len(answers.documents(answers.topics.interventions)) == 4, "four interventions")
    interventions = {one["stream_id"]: one for one in answers.documents(answers.topics.interventions)}
    assert {name: one["reason"] for name, one in interventions.items()} == {
        "cut": "unsafe",
        "jump": "unavailable",
        "long": "unavailable",
        "twice": "unavailable",
    }
    assert interventions["cut"]["replacement"] == "Stopped."
    cut = {"jump": "cut", "long": "cut", "twice": "cut"}
    eventually(lambda: answers.states() == cut, "only three streams are known, which were cut")
    eventually(lambda: len(answers.records(answers.topics.dead_letters)) == len(bad), "the dead letters are there")
    letters = {}
    for message in answers.records(answers.topics.dead_letters):
        found = {name: (value or b"").decode() for name, value in headers_of(message)}
        letters[int(found["source.partition"]), int(found["source.offset"])] = found["reason"]
    assert letters == dict(zip(bad, ("not_json", "invalid_field"), strict=True))
    simulated = json.loads(site.command("policy", "simulate", "--tenant", "strict", "--json").stdout)
    assert (simulated["streams"], simulated["recorded_cuts"]) == (1, 1)
    assert simulated["differences"]["same"] == 1
    closed = 'guardline_stream_records_total{outcome="closed"}'
    eventually(lambda: worker.metric(closed) == 4, "what is committed is counted")
    assert worker.metric('guardline_stream_cuts_total{reason="unsafe"}') == 1
    eventually(lambda: worker.metric("guardline_streams_open") == 3, "three streams were cut and not closed")
    stack.kill_redis()
    eventually(lambda: worker.metric("guardline_redis_up") == 0, "the worker knows that Redis is down")
    late = [step("open", 0, "late", tenant_id="strict"), step("delta", 1, "late", "is judged", tenant_id="strict")]
    _, position = answers.send(late)
    eventually(lambda: answers.verdicts().get(position, {}).get("outcome") == "cut", "the last known policy applies")
    stack.restart_redis()
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    for text in ("thank you", "judged", "12345"):
        assert text not in worker.text


def test_a_topic_that_deletes_records_before_a_stream_ends_is_refused(site: Site, model: Path) -> None:
    answers = Answers(site, model)
    site.environment["GUARDLINE_TOPICS__RETENTION"] = json.dumps({answers.topics.streams: 0.5})
    create(site.settings(), [getattr(answers.topics, name) for name in ("streams", "stream_verdicts", "interventions")])
    create(site.settings(), [answers.topics.stream_sessions, answers.topics.dead_letters])
    worker = answers.worker("one")
    assert worker.wait() == 2
    assert (
        f"topics.streams: {answers.topics.streams} keeps records for 0.5 hours, and a stream may live for 1"
        in (worker.end["cause"])
    )
